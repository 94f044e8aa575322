#include "edgeq/float32.h"

EDGEQ_BINARY_F32(edgeq_squared_difference_f32, (x - y) * (x - y))
