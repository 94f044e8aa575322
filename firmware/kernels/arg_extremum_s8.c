#include "edgeq/choice.h"

EDGEQ_ARG_EXTREMUM(edgeq_arg_extremum_s8, int8_t)
