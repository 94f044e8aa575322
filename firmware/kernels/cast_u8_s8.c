#include "edgeq/choice.h"

EDGEQ_CAST(edgeq_cast_u8_s8, uint8_t, int8_t, x)
