#include "edgeq/elementwise.h"

EDGEQ_BINARY(edgeq_maximum_s32, edgeq_broadcast, int32_t, int32_t, x > y ? x : y)
