#include "edgeq/choice.h"

EDGEQ_BINARY(edgeq_compare_f32, edgeq_compare_params, float, uint8_t, EDGEQ_HOLDS(p->relation, x, y))
