#include "edgeq/float32.h"

EDGEQ_BINARY_F32(edgeq_div_f32, edgeq_clamp_float(x / y, p->act_min, p->act_max))
