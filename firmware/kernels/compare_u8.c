#include "edgeq/choice.h"

EDGEQ_BINARY(edgeq_compare_u8, edgeq_compare_params, uint8_t, uint8_t, EDGEQ_HOLDS(p->relation, x, y))
