#include "edgeq/float32.h"

EDGEQ_BINARY_F32(edgeq_prelu_f32, x >= 0.0f ? x : x * y)
