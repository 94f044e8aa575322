#include "edgeq/arithmetic.h"
#include "edgeq/elementwise.h"

void edgeq_cumsum_s8(const edgeq_cumsum_params *p, const int8_t *input, int8_t *output) {
    for (int32_t row = 0; row < p->outer * p->inner; row++) {
        const int32_t start = row / p->inner * p->axis * p->inner + row % p->inner;
        int32_t sum = 0;
        for (int32_t k = 0; k < p->axis; k++) {
            const int32_t at = start + (p->reverse != 0 ? p->axis - 1 - k : k) * p->inner;
            const int32_t raised = (input[at] + p->input_offset) * (INT32_C(1) << p->left_shift);
            const int32_t x = edgeq_requantize(raised, p->input_multiplier, p->input_shift);
            const int32_t before = sum;
            sum += x;
            const int32_t shown = p->exclusive != 0 ? before : sum;
            const int32_t value = edgeq_requantize(shown, p->multiplier, p->shift) + p->output_offset;
            output[at] = (int8_t)edgeq_clamp(value, INT8_MIN, INT8_MAX);
        }
    }
}
