#include "edgeq/elementwise.h"

#include "edgeq/arithmetic.h"

void edgeq_add_n_s8(const edgeq_sum_n_params *p, const int8_t *const *inputs, int8_t *output) {
    for (int32_t i = 0; i < p->count; i++) {
        int32_t sum = 0;
        for (int32_t n = 0; n < p->inputs; n++) {
            sum += edgeq_requantize((inputs[n][i] + p->input_offset) * (1 << 20), p->input_multiplier, p->input_shift);
        }
        const int32_t value = edgeq_requantize(sum, p->multiplier, p->shift) + p->output_offset;
        output[i] = (int8_t)edgeq_clamp(value, INT8_MIN, INT8_MAX);
    }
}
