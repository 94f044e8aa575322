#include "edgeq/int16.h"

#define KERNEL edgeq_add_s16
#include "edgeq/add_body.h"
