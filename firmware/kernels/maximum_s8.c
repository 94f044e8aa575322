#include "edgeq/elementwise.h"

EDGEQ_PICK(edgeq_maximum_s8, int8_t, >)
