#include "edgeq/reduction.h"

EDGEQ_REDUCE_PICK(edgeq_reduce_min_s8, int8_t, <)
