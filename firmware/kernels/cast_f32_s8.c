#include "edgeq/choice.h"

EDGEQ_CAST(edgeq_cast_f32_s8, float, int8_t, x >= 127.0f ? 127 : x > -128.0f ? (int32_t)x : -128)
