#include "edgeq/int8.h"
#include "edgeq/weights_4.h"

#define KERNEL edgeq_fully_connected_s4
#include "edgeq/fully_connected_body.h"
