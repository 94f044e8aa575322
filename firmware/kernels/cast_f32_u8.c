#include "edgeq/choice.h"

EDGEQ_CAST(edgeq_cast_f32_u8, float, uint8_t, x != 0)
