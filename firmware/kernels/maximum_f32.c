#include "edgeq/float32.h"

EDGEQ_BINARY_F32(edgeq_maximum_f32, x > y ? x : y)
