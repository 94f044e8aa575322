#include "edgeq/int8.h"

#define KERNEL edgeq_top_k_s8
#include "edgeq/top_k_body.h"
