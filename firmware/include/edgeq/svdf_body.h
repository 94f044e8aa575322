/* The kernel SVDF for a state and time weights of the type of int8.h or int16.h; the rest is int8. */
#include "recurrent.h"

#include <string.h>

void KERNEL(const edgeq_svdf_params *p, const int8_t *input, const int8_t *features, const int32_t *feature_bias,
            const edgeq_element *times, const int32_t *bias, edgeq_element *state, int8_t *output) {
    for (int32_t b = 0; b < p->batches; b++, input += p->depth) {
        int32_t filter = 0;
        for (int32_t unit = 0; unit < p->units; unit++) {
            int32_t sum = bias[unit];
            for (int32_t r = 0; r < p->rank; r++, filter++, state += p->memory) {
                int32_t feature = feature_bias[filter];
                for (int32_t k = 0; k < p->depth; k++) {
                    feature += features[filter * p->depth + k] * input[k];
                }
                feature = edgeq_requantize(feature, p->feature_multiplier, p->feature_shift);
                memmove(state, state + 1, (uint32_t)(p->memory - 1) * sizeof *state);
                state[p->memory - 1] =
                    (edgeq_element)edgeq_clamp(feature + p->state_offset, EDGEQ_LOWEST, EDGEQ_HIGHEST);
                for (int32_t m = 0; m < p->memory; m++) {
                    sum += times[filter * p->memory + m] * (state[m] - p->state_offset);
                }
            }
            const int32_t value = edgeq_requantize(sum, p->multiplier, p->shift) + p->output_offset;
            *output++ = (int8_t)edgeq_clamp(value, INT8_MIN, INT8_MAX);
        }
    }
}
