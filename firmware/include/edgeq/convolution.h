/* Convolutions over NHWC tensors: weights, then bias, then a multiplier and a shift for every output channel. */
#ifndef EDGEQ_CONVOLUTION_H
#define EDGEQ_CONVOLUTION_H

#include <stdint.h>

/* Sizes in elements. Padding beyond the input counts as zero_point (it adds nothing).
 * input_offset = -zero_point of the input, in -127..128 (0 in 16x8); output_offset = zero_point of the output.
 * filter_c: input channels that one output channel reads (in_c, or in_c / groups).
 * multiplier: output channels for each input channel (depthwise only). */
typedef struct {
    int32_t batches, in_h, in_w, in_c, out_h, out_w, out_c;
    int32_t filter_h, filter_w, filter_c;
    int32_t stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
    int32_t multiplier;
    int32_t input_offset, output_offset, act_min, act_max;
} edgeq_conv_params;

/* weights [out_c][filter_h][filter_w][filter_c], bias, multipliers and shifts [out_c]. Outputs are written in
 * ascending order, each pixel after all its inputs were read but for the pixel's other channels. */
void edgeq_conv_2d_s8(const edgeq_conv_params *p, const int8_t *input, const int8_t *weights, const int32_t *bias,
                      const int32_t *multipliers, const int8_t *shifts, int8_t *output);

/* Weight i of an array of 4-bit weights, two in a byte, the lower four bits first. */
static inline int32_t edgeq_weight_4(const uint8_t *weights, int32_t i) {
    const int32_t nibble = (weights[i >> 1] >> (4 * (i & 1))) & 0xF;
    return (nibble ^ 8) - 8;
}

/* The same with packed 4-bit weights; no channel starts at a new byte of its own. */
void edgeq_conv_2d_s4(const edgeq_conv_params *p, const int8_t *input, const uint8_t *weights, const int32_t *bias,
                      const int32_t *multipliers, const int8_t *shifts, int8_t *output);

/* weights [filter_h][filter_w][out_c]; output channel c reads input channel c / multiplier. Order as above. */
void edgeq_depthwise_conv_2d_s8(const edgeq_conv_params *p, const int8_t *input, const int8_t *weights,
                                const int32_t *bias, const int32_t *multipliers, const int8_t *shifts, int8_t *output);

/* 16x8: int16 activations with zero point 0, 64-bit accumulators and biases; with 32-bit biases the accumulators fit
 * 32 bits and are requantized as in int8. */
void edgeq_conv_2d_s16(const edgeq_conv_params *p, const int16_t *input, const int8_t *weights, const int64_t *bias,
                       const int32_t *multipliers, const int8_t *shifts, int16_t *output);
void edgeq_conv_2d_s16_b32(const edgeq_conv_params *p, const int16_t *input, const int8_t *weights, const int32_t *bias,
                           const int32_t *multipliers, const int8_t *shifts, int16_t *output);
void edgeq_depthwise_conv_2d_s16(const edgeq_conv_params *p, const int16_t *input, const int8_t *weights,
                                 const int64_t *bias, const int32_t *multipliers, const int8_t *shifts,
                                 int16_t *output);

/* The sum over one receptive field of 16x8 for one output channel; taps outside the input add nothing. */
static inline int64_t edgeq_window_sum_s16(const edgeq_conv_params *p, const int16_t *input, const int8_t *filter,
                                           int32_t top, int32_t left) {
    int64_t sum = 0;
    for (int32_t ky = 0; ky < p->filter_h; ky++) {
        const int32_t y = top + ky * p->dilation_h;
        if (y < 0 || y >= p->in_h) {
            continue;
        }
        for (int32_t kx = 0; kx < p->filter_w; kx++) {
            const int32_t x = left + kx * p->dilation_w;
            if (x < 0 || x >= p->in_w) {
                continue;
            }
            const int16_t *pixel = input + (y * p->in_w + x) * p->in_c;
            const int8_t *taps = filter + (ky * p->filter_w + kx) * p->filter_c;
            for (int32_t c = 0; c < p->filter_c; c++) {
                sum += taps[c] * pixel[c];
            }
        }
    }
    return sum;
}

/* Transposed: weights [out_c][filter_h][filter_w][in_c]; the pads are those that the output loses. */
void edgeq_transpose_conv_s8(const edgeq_conv_params *p, const int8_t *input, const int8_t *weights,
                             const int32_t *bias, const int32_t *multipliers, const int8_t *shifts, int8_t *output);
void edgeq_transpose_conv_s16(const edgeq_conv_params *p, const int16_t *input, const int8_t *weights,
                              const int64_t *bias, const int32_t *multipliers, const int8_t *shifts, int16_t *output);

typedef struct {
    int32_t batches, depth, units;
    int32_t per_channel; /* 1: a multiplier and a shift for each unit; 0: one for all */
    int32_t output_offset, act_min, act_max;
} edgeq_fully_connected_params;

/* weights [units][depth]; bias [units] with the input's zero point folded in: bias - zero_point * sum(weights).
 * Rows (batches) are written after they were read. */
void edgeq_fully_connected_s8(const edgeq_fully_connected_params *p, const int8_t *input, const int8_t *weights,
                              const int32_t *bias, const int32_t *multipliers, const int8_t *shifts, int8_t *output);
void edgeq_fully_connected_s4(const edgeq_fully_connected_params *p, const int8_t *input, const uint8_t *weights,
                              const int32_t *bias, const int32_t *multipliers, const int8_t *shifts, int8_t *output);
void edgeq_fully_connected_s16(const edgeq_fully_connected_params *p, const int16_t *input, const int8_t *weights,
                               const int64_t *bias, const int32_t *multipliers, const int8_t *shifts, int16_t *output);

#endif
