#include "edgeq/float32.h"

/* The sum of the taps whose input reaches the output pixel (y, x), inputs in ascending order. */
static float gather_taps(const edgeq_conv_f32_params *p, const float *input, const float *filter, int32_t y,
                         int32_t x) {
    float sum = 0.0f;
    for (int32_t ky = p->filter_h - 1; ky >= 0; ky--) {
        const int32_t iy = (y - ky) / p->stride_h;
        if (y < ky || iy * p->stride_h != y - ky || iy >= p->in_h) {
            continue;
        }
        for (int32_t kx = p->filter_w - 1; kx >= 0; kx--) {
            const int32_t ix = (x - kx) / p->stride_w;
            if (x < kx || ix * p->stride_w != x - kx || ix >= p->in_w) {
                continue;
            }
            const float *pixel = input + (iy * p->in_w + ix) * p->in_c;
            const float *taps = filter + (ky * p->filter_w + kx) * p->in_c;
            for (int32_t c = 0; c < p->in_c; c++) {
                sum += pixel[c] * taps[c];
            }
        }
    }
    return sum;
}

void edgeq_transpose_conv_f32(const edgeq_conv_f32_params *p, const float *input, const float *weights,
                              const float *bias, float *output) {
    const int32_t filter_size = p->filter_h * p->filter_w * p->in_c;
    for (int32_t b = 0; b < p->batches; b++, input += p->in_h * p->in_w * p->in_c) {
        for (int32_t y = 0; y < p->out_h; y++) {
            for (int32_t x = 0; x < p->out_w; x++) {
                for (int32_t c = 0; c < p->out_c; c++) {
                    const float sum = gather_taps(p, input, weights + c * filter_size, y + p->pad_top, x + p->pad_left);
                    *output++ = edgeq_clamp_float(sum + bias[c], p->act_min, p->act_max);
                }
            }
        }
    }
}
