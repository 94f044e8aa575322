#include "edgeq/reduction.h"

EDGEQ_REDUCE_PICK(edgeq_reduce_max_s8, int8_t, >)
