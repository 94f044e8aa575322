#include "edgeq/elementwise.h"

EDGEQ_PICK(edgeq_maximum_s32, int32_t, >)
