#include "edgeq/elementwise.h"

EDGEQ_PICK(edgeq_minimum_s32, int32_t, <)
