#include "edgeq/choice.h"

EDGEQ_CAST(edgeq_cast_s16_s32, int16_t, int32_t, x)
