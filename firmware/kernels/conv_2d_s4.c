#include "edgeq/int8.h"
#include "edgeq/weights_4.h"

#define KERNEL edgeq_conv_2d_s4
#include "edgeq/conv_2d_body.h"
