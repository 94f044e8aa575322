#include "edgeq/int16.h"

#define KERNEL edgeq_sum_s16
#include "edgeq/sum_body.h"
