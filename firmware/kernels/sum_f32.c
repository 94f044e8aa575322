#include "edgeq/float32.h"

void edgeq_sum_f32(const edgeq_reduce_f32_params *p, const float *input, float *output) {
    int32_t kept[4] = {0, 0, 0, 0};
    int32_t reduced[4] = {0, 0, 0, 0};
    int32_t base = 0;
    do {
        float sum = 0.0f;
        int32_t at = base;
        do {
            sum += input[at];
        } while (edgeq_step(p->reduced_size, p->reduced_stride, reduced, &at));
        *output++ = sum / p->divisor;
    } while (edgeq_step(p->kept_size, p->kept_stride, kept, &base));
}
