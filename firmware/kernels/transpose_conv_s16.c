#include "edgeq/int16.h"

#define KERNEL edgeq_transpose_conv_s16
#include "edgeq/transpose_conv_body.h"
