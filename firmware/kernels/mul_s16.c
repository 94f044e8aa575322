#include "edgeq/int16.h"

#define KERNEL edgeq_mul_s16
#include "edgeq/mul_body.h"
