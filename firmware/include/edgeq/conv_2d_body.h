/* The kernel CONV_2D for the element type of int8.h, int16.h or int16_b32.h and the weights of weights_8.h or
 * weights_4.h. */
#include "convolution.h"

/* The sum over one receptive field for one output channel; taps outside the input add nothing. */
static edgeq_accumulator accumulate(const edgeq_conv_params *p, const edgeq_element *input,
                                    const edgeq_weights *weights, int32_t first, int32_t top, int32_t left) {
    edgeq_accumulator sum = 0;
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
            const edgeq_element *pixel = input + (y * p->in_w + x) * p->in_c;
            const int32_t tap = first + (ky * p->filter_w + kx) * p->filter_c;
            for (int32_t c = 0; c < p->filter_c; c++) {
                sum += edgeq_weight(weights, tap + c) * (pixel[c] + EDGEQ_INPUT_OFFSET(p));
            }
        }
    }
    return sum;
}

void KERNEL(const edgeq_conv_params *p, const edgeq_element *input, const edgeq_weights *weights,
            const edgeq_accumulator *bias, const int32_t *multipliers, const int8_t *shifts, edgeq_element *output) {
    const int32_t filter_size = p->filter_h * p->filter_w * p->filter_c;
    const int32_t group_size = p->out_c / (p->in_c / p->filter_c);
    for (int32_t b = 0; b < p->batches; b++, input += p->in_h * p->in_w * p->in_c) {
        for (int32_t y = 0; y < p->out_h; y++) {
            for (int32_t x = 0; x < p->out_w; x++) {
                for (int32_t c = 0; c < p->out_c; c++) {
                    const edgeq_accumulator sum =
                        bias[c] + accumulate(p, input + c / group_size * p->filter_c, weights, c * filter_size,
                                             y * p->stride_h - p->pad_top, x * p->stride_w - p->pad_left);
                    const int32_t value = edgeq_requantize_sum(sum, multipliers[c], shifts[c]) + p->output_offset;
                    *output++ = (edgeq_element)edgeq_clamp(value, p->act_min, p->act_max);
                }
            }
        }
    }
}
