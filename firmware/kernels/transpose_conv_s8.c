#include "edgeq/int8.h"

#define KERNEL edgeq_transpose_conv_s8
#include "edgeq/transpose_conv_body.h"
