#include "edgeq/choice.h"

EDGEQ_CAST(edgeq_cast_s8_u8, int8_t, uint8_t, x != 0)
