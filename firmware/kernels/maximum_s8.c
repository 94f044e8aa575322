#include "edgeq/elementwise.h"

EDGEQ_BINARY(edgeq_maximum_s8, edgeq_broadcast, int8_t, int8_t, x > y ? x : y)
