#include "edgeq/choice.h"

EDGEQ_COMPARE(edgeq_compare_u8, uint8_t)
