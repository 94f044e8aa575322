#include "edgeq/reduction.h"

EDGEQ_REDUCE_PICK(edgeq_reduce_max_u8, uint8_t, >)
