#include "edgeq/choice.h"

EDGEQ_CAST(edgeq_cast_u8_s16, uint8_t, int16_t, x)
