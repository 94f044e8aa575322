#include "edgeq/int16.h"

#define KERNEL edgeq_batch_matmul_s16
#include "edgeq/batch_matmul_body.h"
