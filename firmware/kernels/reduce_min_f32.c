#include "edgeq/float32.h"

EDGEQ_REDUCE_PICK(edgeq_reduce_min_f32, float, <)
