#include "edgeq/reduction.h"

EDGEQ_REDUCE_PICK(edgeq_reduce_max_s16, int16_t, >)
