#include "edgeq/int16.h"

#define KERNEL edgeq_depthwise_conv_2d_s16
#include "edgeq/depthwise_conv_2d_body.h"
