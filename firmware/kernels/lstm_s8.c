#include "edgeq/int8.h"

#define KERNEL edgeq_lstm_s8
#include "edgeq/lstm_body.h"
