#include "edgeq/int16.h"

#define KERNEL edgeq_average_pool_2d_s16
#include "edgeq/average_pool_2d_body.h"
