#include "edgeq/int8.h"

#define KERNEL edgeq_depthwise_conv_2d_s8
#include "edgeq/depthwise_conv_2d_body.h"
