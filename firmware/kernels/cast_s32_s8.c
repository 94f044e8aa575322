#include "edgeq/choice.h"

EDGEQ_CAST(edgeq_cast_s32_s8, int32_t, int8_t, x)
