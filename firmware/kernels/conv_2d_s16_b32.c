#include "edgeq/int16_b32.h"
#include "edgeq/weights_8.h"

#define KERNEL edgeq_conv_2d_s16_b32
#include "edgeq/conv_2d_body.h"
