/* The kernel DEPTHWISE_CONV_2D for the element type of int8.h or int16.h. */
#include "convolution.h"

/* The sum over one receptive field for one output channel; taps outside the input add nothing. */
static edgeq_accumulator accumulate(const edgeq_conv_params *p, const edgeq_element *input, const int8_t *filter,
                                    int32_t top, int32_t left) {
    const int32_t first_y = top < 0 ? (-top + p->dilation_h - 1) / p->dilation_h : 0;
    const int32_t first_x = left < 0 ? (-left + p->dilation_w - 1) / p->dilation_w : 0;
    edgeq_accumulator sum = 0;
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
            sum += filter[(ky * p->filter_w + kx) * p->out_c] * (value + EDGEQ_INPUT_OFFSET(p));
        }
    }
    return sum;
}

void KERNEL(const edgeq_conv_params *p, const edgeq_element *input, const int8_t *weights,
            const edgeq_accumulator *bias, const int32_t *multipliers, const int8_t *shifts, edgeq_element *output) {
    for (int32_t b = 0; b < p->batches; b++, input += p->in_h * p->in_w * p->in_c) {
        for (int32_t y = 0; y < p->out_h; y++) {
            for (int32_t x = 0; x < p->out_w; x++) {
                for (int32_t c = 0; c < p->out_c; c++) {
                    const edgeq_accumulator sum =
                        bias[c] + accumulate(p, input + c / p->multiplier, weights + c, y * p->stride_h - p->pad_top,
                                             x * p->stride_w - p->pad_left);
                    const int32_t value = edgeq_requantize_sum(sum, multipliers[c], shifts[c]) + p->output_offset;
                    *output++ = (edgeq_element)edgeq_clamp(value, p->act_min, p->act_max);
                }
            }
        }
    }
}
