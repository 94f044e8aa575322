#include "edgeq/recurrent.h"

void edgeq_logistic_s16(const edgeq_curve_params *p, const int16_t *input, const uint16_t *sigmoid, int16_t *output) {
    for (int32_t i = 0; i < p->count; i++) {
        output[i] = edgeq_logistic_16(sigmoid, input[i], p->multiplier, p->shift);
    }
}
