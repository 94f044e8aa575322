#include "edgeq/choice.h"

EDGEQ_CAST(edgeq_cast_s32_u8, int32_t, uint8_t, x != 0)
