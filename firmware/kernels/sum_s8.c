#include "edgeq/int8.h"

#define KERNEL edgeq_sum_s8
#include "edgeq/sum_body.h"
