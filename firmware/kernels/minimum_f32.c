#include "edgeq/float32.h"

EDGEQ_BINARY_F32(edgeq_minimum_f32, x < y ? x : y)
