#include "edgeq/arithmetic.h"
#include "edgeq/convolution.h"

void edgeq_conv_2d_s16_b32(const edgeq_conv_params *p, const int16_t *input, const int8_t *weights, const int32_t *bias,
                           const int32_t *multipliers, const int8_t *shifts, int16_t *output) {
    const int32_t filter_size = p->filter_h * p->filter_w * p->filter_c;
    const int32_t group_size = p->out_c / (p->in_c / p->filter_c);
    for (int32_t b = 0; b < p->batches; b++, input += p->in_h * p->in_w * p->in_c) {
        for (int32_t y = 0; y < p->out_h; y++) {
            for (int32_t x = 0; x < p->out_w; x++) {
                for (int32_t c = 0; c < p->out_c; c++) {
                    const int32_t sum =
                        bias[c] + (int32_t)edgeq_window_sum_s16(p, input + c / group_size * p->filter_c,
                                                                weights + c * filter_size, y * p->stride_h - p->pad_top,
                                                                x * p->stride_w - p->pad_left);
                    const int32_t value = edgeq_requantize(sum, multipliers[c], shifts[c]) + p->output_offset;
                    *output++ = (int16_t)edgeq_clamp(value, p->act_min, p->act_max);
                }
            }
        }
    }
}
