#include "edgeq/elementwise.h"

EDGEQ_BINARY(edgeq_minimum_s16, edgeq_broadcast, int16_t, int16_t, x < y ? x : y)
