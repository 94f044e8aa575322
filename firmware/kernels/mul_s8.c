#include "edgeq/int8.h"

#define KERNEL edgeq_mul_s8
#include "edgeq/mul_body.h"
