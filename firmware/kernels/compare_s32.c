#include "edgeq/choice.h"

EDGEQ_COMPARE(edgeq_compare_s32, int32_t)
