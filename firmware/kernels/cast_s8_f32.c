#include "edgeq/choice.h"

EDGEQ_CAST(edgeq_cast_s8_f32, int8_t, float, x)
