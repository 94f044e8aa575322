#include "edgeq/choice.h"

EDGEQ_CAST(edgeq_cast_s16_u8, int16_t, uint8_t, x != 0)
