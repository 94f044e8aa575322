#include "edgeq/choice.h"

EDGEQ_CAST(edgeq_cast_s8_s32, int8_t, int32_t, x)
