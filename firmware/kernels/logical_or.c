#include "edgeq/choice.h"

EDGEQ_BINARY(edgeq_logical_or, edgeq_broadcast, uint8_t, uint8_t, x != 0 || y != 0)
