#include "edgeq/int16.h"

#define KERNEL edgeq_lstm_s16
#include "edgeq/lstm_body.h"
