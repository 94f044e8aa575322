#include "edgeq/int8.h"

#define KERNEL edgeq_svdf_s8
#include "edgeq/svdf_body.h"
