#include "edgeq/arithmetic.h"
#include "edgeq/convolution.h"

void edgeq_fully_connected_s4(const edgeq_fully_connected_params *p, const int8_t *input, const uint8_t *weights,
                              const int32_t *bias, const int32_t *multipliers, const int8_t *shifts, int8_t *output) {
    for (int32_t b = 0; b < p->batches; b++, input += p->depth) {
        int32_t row = 0;
        for (int32_t unit = 0; unit < p->units; unit++, row += p->depth) {
            int32_t sum = bias[unit];
            for (int32_t k = 0; k < p->depth; k++) {
                sum += edgeq_weight_4(weights, row + k) * input[k];
            }
            const int32_t at = p->per_channel != 0 ? unit : 0;
            const int32_t value = edgeq_requantize(sum, multipliers[at], shifts[at]) + p->output_offset;
            *output++ = (int8_t)edgeq_clamp(value, p->act_min, p->act_max);
        }
    }
}
