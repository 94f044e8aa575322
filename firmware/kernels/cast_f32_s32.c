#include "edgeq/choice.h"

EDGEQ_CAST(edgeq_cast_f32_s32, float, int32_t,
           x >= 2147483648.0f   ? INT32_MAX
           : x > -2147483648.0f ? (int32_t)x
                                : INT32_MIN)
