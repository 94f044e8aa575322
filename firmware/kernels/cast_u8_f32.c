#include "edgeq/choice.h"

EDGEQ_CAST(edgeq_cast_u8_f32, uint8_t, float, x)
