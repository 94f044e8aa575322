#include "edgeq/elementwise.h"

EDGEQ_PICK(edgeq_maximum_s16, int16_t, >)
