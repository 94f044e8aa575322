#include "edgeq/float32.h"

EDGEQ_BINARY(edgeq_minimum_f32, edgeq_broadcast_f32, float, float, x < y ? x : y)
