#include "edgeq/reduction.h"

EDGEQ_REDUCE_PICK(edgeq_reduce_min_u8, uint8_t, <)
