#include "edgeq/int16.h"

#define KERNEL edgeq_max_pool_2d_s16
#include "edgeq/max_pool_2d_body.h"
