/* The kernel UNIDIRECTIONAL_SEQUENCE_LSTM for the element type of int8.h or int16.h. */
#include "recurrent.h"

#include <string.h>

static int32_t dot(const edgeq_element *values, const int8_t *weights, int32_t count, edgeq_accumulator sum,
                   int32_t multiplier, int32_t shift) {
    for (int32_t k = 0; k < count; k++) {
        sum += values[k] * weights[k];
    }
    return edgeq_clamp(edgeq_requantize_sum(sum, multiplier, shift), INT16_MIN, INT16_MAX);
}

void KERNEL(const edgeq_lstm_params *p, const edgeq_element *input, const int8_t *weights, const int8_t *recurrent,
            const edgeq_accumulator *bias, const edgeq_accumulator *recurrent_bias, const uint16_t *sigmoid,
            edgeq_element *hidden, int16_t *cell, edgeq_element *output) {
    for (int32_t b = 0; b < p->batches; b++, hidden += p->units, cell += p->units) {
        for (int32_t t = 0; t < p->steps; t++) {
            const int32_t at = b * p->batch_stride + t * p->step_stride;
            const edgeq_element *const x = input + at * p->depth;
            edgeq_element *const y = output + at * p->units;
            for (int32_t unit = 0; unit < p->units; unit++) {
                int32_t gate[4];
                for (int32_t g = 0; g < 4; g++) {
                    const int32_t row = g * p->units + unit;
                    const int32_t sum = dot(x, weights + row * p->depth, p->depth, bias[row], p->input_multiplier[g],
                                            p->input_shift[g]) +
                                        dot(hidden, recurrent + row * p->units, p->units, recurrent_bias[row],
                                            p->recurrent_multiplier[g], p->recurrent_shift[g]);
                    const int32_t value = edgeq_clamp(sum, INT16_MIN, INT16_MAX);
                    gate[g] = g == 2 ? edgeq_tanh_16(sigmoid, value, 3, 0) : edgeq_logistic_16(sigmoid, value, 3, 0);
                }
                const int32_t kept = edgeq_requantize(gate[1] * cell[unit], p->forget_multiplier, p->forget_shift);
                const int32_t added = edgeq_requantize(gate[0] * gate[2], p->candidate_multiplier, p->candidate_shift);
                int32_t state =
                    edgeq_clamp(edgeq_clamp(kept, INT16_MIN, INT16_MAX) + edgeq_clamp(added, INT16_MIN, INT16_MAX),
                                INT16_MIN, INT16_MAX);
                if (p->cell_clip > 0) {
                    state = edgeq_clamp(state, -p->cell_clip, p->cell_clip);
                }
                cell[unit] = (int16_t)state;
                const int32_t squashed = edgeq_tanh_16(sigmoid, state, p->tanh_multiplier, p->tanh_shift);
                const int32_t value = edgeq_requantize(gate[3] * squashed, p->hidden_multiplier, p->hidden_shift);
                y[unit] = (edgeq_element)edgeq_clamp(value + p->hidden_offset, EDGEQ_LOWEST, EDGEQ_HIGHEST);
            }
            memcpy(hidden, y, (uint32_t)p->units * sizeof *hidden);
        }
    }
}
