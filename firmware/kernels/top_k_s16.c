#include "edgeq/int16.h"

#define KERNEL edgeq_top_k_s16
#include "edgeq/top_k_body.h"
