#include "edgeq/choice.h"

EDGEQ_CAST(edgeq_cast_s16_f32, int16_t, float, x)
