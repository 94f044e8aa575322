#include "edgeq/int8.h"

#define KERNEL edgeq_max_pool_2d_s8
#include "edgeq/max_pool_2d_body.h"
