#include "edgeq/elementwise.h"

EDGEQ_PICK(edgeq_minimum_s16, int16_t, <)
