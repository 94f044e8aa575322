#include "edgeq/choice.h"

EDGEQ_ARG_EXTREMUM(edgeq_arg_extremum_f32, float)
