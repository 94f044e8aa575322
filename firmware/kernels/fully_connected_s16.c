#include "edgeq/int16.h"
#include "edgeq/weights_8.h"

#define KERNEL edgeq_fully_connected_s16
#include "edgeq/fully_connected_body.h"
