#include "edgeq/int8.h"
#include "edgeq/weights_8.h"

#define KERNEL edgeq_conv_2d_s8
#include "edgeq/conv_2d_body.h"
