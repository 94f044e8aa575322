#include "edgeq/choice.h"

EDGEQ_CAST(edgeq_cast_s32_f32, int32_t, float, x)
