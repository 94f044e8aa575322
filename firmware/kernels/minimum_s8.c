#include "edgeq/elementwise.h"

EDGEQ_PICK(edgeq_minimum_s8, int8_t, <)
