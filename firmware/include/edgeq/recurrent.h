/* Recurrent layers that keep state between invokes, and the 16-bit activations that they share with 16x8 models. */
#ifndef EDGEQ_RECURRENT_H
#define EDGEQ_RECURRENT_H

#include "arithmetic.h"

#include <stdint.h>

/* sigmoid[i] = sigmoid(i / 24) in Q0.16, i in 0..255. The input is x * multiplier / 2^shift in units of 1/12288;
 * the output is in Q0.15. |x * multiplier| is below 2^31. */
static inline int32_t edgeq_scale_16(int32_t x, int32_t multiplier, int32_t shift) {
    return (x * multiplier + (shift > 0 ? (int32_t)(UINT32_C(1) << (shift - 1)) : 0)) >> shift;
}

static inline int16_t edgeq_logistic_16(const uint16_t sigmoid[256], int32_t x, int32_t multiplier, int32_t shift) {
    const int32_t scaled = edgeq_scale_16(x, multiplier, shift);
    const uint32_t magnitude = (uint32_t)(scaled < 0 ? -scaled : scaled);
    const uint32_t at = magnitude >> 9;
    uint32_t value = UINT32_C(0x7FFF) << 10;
    if (at < 255) {
        value = ((uint32_t)sigmoid[at] << 9) + (magnitude & 0x1FF) * ((uint32_t)sigmoid[at + 1] - sigmoid[at]);
    }
    value = scaled >= 0 ? value + (1U << 9) : (1U << 25) - value + (1U << 9) - 1U;
    return (int16_t)(value >> 10);
}

static inline int16_t edgeq_tanh_16(const uint16_t sigmoid[256], int32_t x, int32_t multiplier, int32_t shift) {
    const int32_t scaled = edgeq_scale_16(x, multiplier, shift);
    const uint32_t magnitude = (uint32_t)(scaled < 0 ? -scaled : scaled);
    const uint32_t at = magnitude >> 8;
    int32_t value = INT32_C(0xFFFF) << 8;
    if (at < 255) {
        value = ((int32_t)sigmoid[at] << 8) + (int32_t)(magnitude & 0xFF) * (sigmoid[at + 1] - sigmoid[at]);
    }
    value = scaled >= 0 ? value - (1 << 23) + (1 << 7) : -value + (1 << 23) + (1 << 7) - 1;
    return (int16_t)(value >> 8);
}

typedef struct {
    int32_t count, multiplier, shift;
} edgeq_curve_params;

/* 16x8: output in Q0.15. May work in place. */
void edgeq_logistic_s16(const edgeq_curve_params *p, const int16_t *input, const uint16_t *sigmoid, int16_t *output);
void edgeq_tanh_s16(const edgeq_curve_params *p, const int16_t *input, const uint16_t *sigmoid, int16_t *output);

/* Gates in the order input, forget, cell, output; each gate's two products are requantized to Q3.12 and added.
 * Row r of step t and batch b is at (b * batch_stride + t * step_stride) rows of `depth` (input) or `units` (output).
 * cell_clip: 0 for none. tanh_*: brings the cell state into units of 1/12288. */
typedef struct {
    int32_t batches, steps, depth, units, batch_stride, step_stride;
    int32_t input_multiplier[4], input_shift[4], recurrent_multiplier[4], recurrent_shift[4];
    int32_t forget_multiplier, forget_shift, candidate_multiplier, candidate_shift;
    int32_t hidden_multiplier, hidden_shift, hidden_offset;
    int32_t cell_clip, tanh_multiplier, tanh_shift;
} edgeq_lstm_params;

/* weights [4][units][depth], recurrent [4][units][units]; bias and recurrent_bias [4][units] with the zero points of
 * the input and of the hidden state folded in. hidden [batches][units] (like the output) and cell (int16) are state.
 * The output may not overlap anything. */
void edgeq_lstm_s8(const edgeq_lstm_params *p, const int8_t *input, const int8_t *weights, const int8_t *recurrent,
                   const int32_t *bias, const int32_t *recurrent_bias, const uint16_t *sigmoid, int8_t *hidden,
                   int16_t *cell, int8_t *output);
void edgeq_lstm_s16(const edgeq_lstm_params *p, const int16_t *input, const int8_t *weights, const int8_t *recurrent,
                    const int64_t *bias, const int64_t *recurrent_bias, const uint16_t *sigmoid, int16_t *hidden,
                    int16_t *cell, int16_t *output);

typedef struct {
    int32_t batches, depth, units, rank, memory;
    int32_t state_offset, feature_multiplier, feature_shift, multiplier, shift, output_offset;
} edgeq_svdf_params;

/* features [units * rank][depth]; feature_bias [units * rank] holds the input's zero point; times [units *
 * rank][memory]; state [batches][units * rank][memory], the newest last. */
void edgeq_svdf_s8(const edgeq_svdf_params *p, const int8_t *input, const int8_t *features, const int32_t *feature_bias,
                   const int8_t *times, const int32_t *bias, int8_t *state, int8_t *output);
void edgeq_svdf_s16(const edgeq_svdf_params *p, const int8_t *input, const int8_t *features,
                    const int32_t *feature_bias, const int16_t *times, const int32_t *bias, int16_t *state,
                    int8_t *output);

#endif
