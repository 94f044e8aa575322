#include "edgeq/float32.h"

EDGEQ_BINARY(edgeq_prelu_f32, edgeq_broadcast_f32, float, float, x >= 0.0f ? x : x * y)
