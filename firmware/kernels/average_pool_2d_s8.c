#include "edgeq/int8.h"

#define KERNEL edgeq_average_pool_2d_s8
#include "edgeq/average_pool_2d_body.h"
