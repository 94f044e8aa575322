#include "edgeq/choice.h"

EDGEQ_CAST(edgeq_cast_f32_s16, float, int16_t, x >= 32767.0f ? 32767 : x > -32768.0f ? (int32_t)x : -32768)
