#include "edgeq/choice.h"

EDGEQ_CAST(edgeq_cast_s8_s16, int8_t, int16_t, x)
