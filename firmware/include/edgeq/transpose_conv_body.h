/* The kernel TRANSPOSE_CONV for the element type of int8.h or int16.h. */
#include "convolution.h"

/* The sum of the taps whose input reaches the output pixel (y, x): those with (y - ky) a multiple of the stride. */
static edgeq_accumulator gather_taps(const edgeq_conv_params *p, const edgeq_element *input, const int8_t *filter,
                                     int32_t y, int32_t x) {
    edgeq_accumulator sum = 0;
    for (int32_t ky = 0; ky < p->filter_h; ky++) {
        const int32_t iy = (y - ky) / p->stride_h;
        if (y < ky || iy * p->stride_h != y - ky || iy >= p->in_h) {
            continue;
        }
        for (int32_t kx = 0; kx < p->filter_w; kx++) {
            const int32_t ix = (x - kx) / p->stride_w;
            if (x < kx || ix * p->stride_w != x - kx || ix >= p->in_w) {
                continue;
            }
            const edgeq_element *pixel = input + (iy * p->in_w + ix) * p->in_c;
            const int8_t *taps = filter + (ky * p->filter_w + kx) * p->in_c;
            for (int32_t c = 0; c < p->in_c; c++) {
                sum += taps[c] * (pixel[c] + EDGEQ_INPUT_OFFSET(p));
            }
        }
    }
    return sum;
}

void KERNEL(const edgeq_conv_params *p, const edgeq_element *input, const int8_t *weights,
            const edgeq_accumulator *bias, const int32_t *multipliers, const int8_t *shifts, edgeq_element *output) {
    const int32_t filter_size = p->filter_h * p->filter_w * p->in_c;
    for (int32_t b = 0; b < p->batches; b++, input += p->in_h * p->in_w * p->in_c) {
        for (int32_t y = 0; y < p->out_h; y++) {
            for (int32_t x = 0; x < p->out_w; x++) {
                for (int32_t c = 0; c < p->out_c; c++) {
                    const edgeq_accumulator sum =
                        bias[c] + gather_taps(p, input, weights + c * filter_size, y + p->pad_top, x + p->pad_left);
                    const int32_t value = edgeq_requantize_sum(sum, multipliers[c], shifts[c]) + p->output_offset;
                    *output++ = (edgeq_element)edgeq_clamp(value, p->act_min, p->act_max);
                }
            }
        }
    }
}
