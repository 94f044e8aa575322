#include "edgeq/arithmetic.h"
#include "edgeq/convolution.h"

/* The sum over one receptive field for one output channel; taps outside the input add nothing. */
static int64_t accumulate(const edgeq_conv_params *p, const int16_t *input, const int8_t *filter, int32_t top,
                          int32_t left) {
    const int32_t first_y = top < 0 ? (-top + p->dilation_h - 1) / p->dilation_h : 0;
    const int32_t first_x = left < 0 ? (-left + p->dilation_w - 1) / p->dilation_w : 0;
    int64_t sum = 0;
    for (int32_t ky = first_y; ky < p->filter_h; ky++) {
        const int32_t y = top + ky * p->dilation_h;
        if (y >= p->in_h) {
            break;
        }
        for (int32_t kx = first_x; kx < p->filter_w; kx++) {
            const int32_t x = left + kx * p->dilation_w;
            if (x >= p->in_w) {
                break;
            }
            const int32_t value = input[(y * p->in_w + x) * p->in_c];
            sum += filter[(ky * p->filter_w + kx) * p->out_c] * value;
        }
    }
    return sum;
}

void edgeq_depthwise_conv_2d_s16(const edgeq_conv_params *p, const int16_t *input, const int8_t *weights,
                                 const int64_t *bias, const int32_t *multipliers, const int8_t *shifts,
                                 int16_t *output) {
    for (int32_t b = 0; b < p->batches; b++, input += p->in_h * p->in_w * p->in_c) {
        for (int32_t y = 0; y < p->out_h; y++) {
            for (int32_t x = 0; x < p->out_w; x++) {
                for (int32_t c = 0; c < p->out_c; c++) {
                    const int64_t sum =
                        bias[c] + accumulate(p, input + c / p->multiplier, weights + c, y * p->stride_h - p->pad_top,
                                             x * p->stride_w - p->pad_left);
                    const int32_t value = edgeq_requantize_64(sum, multipliers[c], shifts[c]) + p->output_offset;
                    *output++ = (int16_t)edgeq_clamp(value, p->act_min, p->act_max);
                }
            }
        }
    }
}
