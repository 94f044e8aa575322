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

/* The same with packed 4-bit weights (weights_4.h); no channel starts at a new byte of its own. */
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
