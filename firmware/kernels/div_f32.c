#include "edgeq/float32.h"

EDGEQ_BINARY(edgeq_div_f32, edgeq_broadcast_f32, float, float, edgeq_clamp_float(x / y, p->act_min, p->act_max))
