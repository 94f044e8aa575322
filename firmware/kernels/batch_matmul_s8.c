#include "edgeq/int8.h"

#define KERNEL edgeq_batch_matmul_s8
#include "edgeq/batch_matmul_body.h"
