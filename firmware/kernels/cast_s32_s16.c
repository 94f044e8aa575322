#include "edgeq/choice.h"

EDGEQ_CAST(edgeq_cast_s32_s16, int32_t, int16_t, x)
