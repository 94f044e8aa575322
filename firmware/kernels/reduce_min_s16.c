#include "edgeq/reduction.h"

EDGEQ_REDUCE_PICK(edgeq_reduce_min_s16, int16_t, <)
