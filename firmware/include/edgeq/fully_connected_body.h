/* The kernel FULLY_CONNECTED for the element type of int8.h or int16.h and the weights of weights_8.h or weights_4.h.
 */
#include "convolution.h"

void KERNEL(const edgeq_fully_connected_params *p, const edgeq_element *input, const edgeq_weights *weights,
            const edgeq_accumulator *bias, const int32_t *multipliers, const int8_t *shifts, edgeq_element *output) {
    for (int32_t b = 0; b < p->batches; b++, input += p->depth) {
        int32_t row = 0;
        for (int32_t unit = 0; unit < p->units; unit++, row += p->depth) {
            edgeq_accumulator sum = bias[unit];
            for (int32_t k = 0; k < p->depth; k++) {
                sum += edgeq_weight(weights, row + k) * input[k];
            }
            const int32_t at = p->per_channel != 0 ? unit : 0;
            const int32_t value = edgeq_requantize_sum(sum, multipliers[at], shifts[at]) + p->output_offset;
            *output++ = (edgeq_element)edgeq_clamp(value, p->act_min, p->act_max);
        }
    }
}
