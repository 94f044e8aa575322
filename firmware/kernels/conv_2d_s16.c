#include "edgeq/int16.h"
#include "edgeq/weights_8.h"

#define KERNEL edgeq_conv_2d_s16
#include "edgeq/conv_2d_body.h"
