/* The kernel AVERAGE_POOL_2D for the element type of int8.h or int16.h. */
#include "pooling.h"

void KERNEL(const edgeq_pool_params *p, const edgeq_element *input, edgeq_element *output) {
    for (int32_t b = 0; b < p->batches; b++, input += p->in_h * p->in_w * p->in_c) {
        for (int32_t oy = 0; oy < p->out_h; oy++) {
            const int32_t top = oy * p->stride_h - p->pad_top;
            const int32_t y0 = top < 0 ? 0 : top;
            const int32_t y1 = top + p->filter_h > p->in_h ? p->in_h : top + p->filter_h;
            for (int32_t ox = 0; ox < p->out_w; ox++) {
                const int32_t left = ox * p->stride_w - p->pad_left;
                const int32_t x0 = left < 0 ? 0 : left;
                const int32_t x1 = left + p->filter_w > p->in_w ? p->in_w : left + p->filter_w;
                const int32_t count = (y1 - y0) * (x1 - x0);
                for (int32_t c = 0; c < p->in_c; c++) {
                    int32_t sum = 0;
                    for (int32_t y = y0; y < y1; y++) {
                        for (int32_t x = x0; x < x1; x++) {
                            sum += input[(y * p->in_w + x) * p->in_c + c];
                        }
                    }
                    const int32_t mean = (sum > 0 ? sum + count / 2 : sum - count / 2) / count;
                    *output++ = (edgeq_element)edgeq_clamp(mean, p->act_min, p->act_max);
                }
            }
        }
    }
}
