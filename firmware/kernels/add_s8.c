#include "edgeq/int8.h"

#define KERNEL edgeq_add_s8
#include "edgeq/add_body.h"
