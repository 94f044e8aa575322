#include "edgeq/choice.h"

EDGEQ_CAST(edgeq_cast_u8_s32, uint8_t, int32_t, x)
