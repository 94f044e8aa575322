#include "edgeq/float32.h"

/* The sum over one receptive field for one output channel. */
static float accumulate(const edgeq_conv_f32_params *p, const float *input, const float *filter, int32_t top,
                        int32_t left) {
    float sum = 0.0f;
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
            const float *pixel = input + (y * p->in_w + x) * p->in_c;
            const float *taps = filter + (ky * p->filter_w + kx) * p->filter_c;
            for (int32_t c = 0; c < p->filter_c; c++) {
                sum += pixel[c] * taps[c];
            }
        }
    }
    return sum;
}

void edgeq_conv_2d_f32(const edgeq_conv_f32_params *p, const float *input, const float *weights, const float *bias,
                       float *output) {
    const int32_t filter_size = p->filter_h * p->filter_w * p->filter_c;
    const int32_t group_size = p->out_c / (p->in_c / p->filter_c);
    for (int32_t b = 0; b < p->batches; b++, input += p->in_h * p->in_w * p->in_c) {
        for (int32_t y = 0; y < p->out_h; y++) {
            for (int32_t x = 0; x < p->out_w; x++) {
                for (int32_t c = 0; c < p->out_c; c++) {
                    const float sum = accumulate(p, input + c / group_size * p->filter_c, weights + c * filter_size,
                                                 y * p->stride_h - p->pad_top, x * p->stride_w - p->pad_left);
                    *output++ = edgeq_clamp_float(sum + bias[c], p->act_min, p->act_max);
                }
            }
        }
    }
}
