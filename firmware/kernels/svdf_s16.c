#include "edgeq/int16.h"

#define KERNEL edgeq_svdf_s16
#include "edgeq/svdf_body.h"
