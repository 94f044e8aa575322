#include "edgeq/float32.h"

EDGEQ_REDUCE_PICK(edgeq_reduce_max_f32, float, >)
