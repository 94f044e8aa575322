#include "edgeq/float32.h"

EDGEQ_BINARY_F32(edgeq_mul_f32, edgeq_clamp_float(x *y, p->act_min, p->act_max))
