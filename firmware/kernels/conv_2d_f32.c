#include "edgeq/float32.h"

/* The sums over one receptive field for four (or fewer) output channels at once; taps outside the input add nothing.
 * Each channel's products are added in the same order, whatever its neighbours do. */
static void accumulate(const edgeq_conv_f32_params *p, const float *input, const float *const filters[4], int32_t top,
                       int32_t left, float sums[4]) {
    float sum0 = 0.0f;
    float sum1 = 0.0f;
    float sum2 = 0.0f;
    float sum3 = 0.0f;
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
            const int32_t tap = (ky * p->filter_w + kx) * p->filter_c;
            const float *taps0 = filters[0] + tap;
            const float *taps1 = filters[1] + tap;
            const float *taps2 = filters[2] + tap;
            const float *taps3 = filters[3] + tap;
            for (int32_t c = 0; c < p->filter_c; c++) {
                const float element = pixel[c];
                sum0 += element * taps0[c];
                sum1 += element * taps1[c];
                sum2 += element * taps2[c];
                sum3 += element * taps3[c];
            }
        }
    }
    sums[0] = sum0;
    sums[1] = sum1;
    sums[2] = sum2;
    sums[3] = sum3;
}

void edgeq_conv_2d_f32(const edgeq_conv_f32_params *p, const float *input, const float *weights, const float *bias,
                       float *output) {
    const int32_t filter_size = p->filter_h * p->filter_w * p->filter_c;
    const int32_t group_size = p->out_c / (p->in_c / p->filter_c);
    for (int32_t b = 0; b < p->batches; b++, input += p->in_h * p->in_w * p->in_c) {
        for (int32_t y = 0; y < p->out_h; y++) {
            for (int32_t x = 0; x < p->out_w; x++) {
                for (int32_t c = 0; c < p->out_c;) {
                    const int32_t rest = group_size - c % group_size;
                    const int32_t count = rest < 4 ? rest : 4;
                    const float *filters[4];
                    for (int32_t i = 0; i < 4; i++) {
                        filters[i] = weights + (c + (i < count ? i : 0)) * filter_size;
                    }
                    float sums[4];
                    accumulate(p, input + c / group_size * p->filter_c, filters, y * p->stride_h - p->pad_top,
                               x * p->stride_w - p->pad_left, sums);
                    for (int32_t i = 0; i < count; i++, c++) {
                        *output++ = edgeq_clamp_float(sums[i] + bias[c], p->act_min, p->act_max);
                    }
                }
            }
        }
    }
}
