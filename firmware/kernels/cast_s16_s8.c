#include "edgeq/choice.h"

EDGEQ_CAST(edgeq_cast_s16_s8, int16_t, int8_t, x)
