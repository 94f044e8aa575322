#include "edgeq/choice.h"

EDGEQ_BINARY(edgeq_compare_s32, edgeq_compare_params, int32_t, uint8_t, EDGEQ_HOLDS(p->relation, x, y))
