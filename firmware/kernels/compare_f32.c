#include "edgeq/choice.h"

EDGEQ_COMPARE(edgeq_compare_f32, float)
