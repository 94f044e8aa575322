#include "edgeq/float32.h"

void edgeq_reduce_min_f32(const edgeq_reduce_f32_params *p, const float *input, float *output) {
    int32_t kept[4] = {0, 0, 0, 0};
    int32_t reduced[4] = {0, 0, 0, 0};
    int32_t base = 0;
    do {
        float best = input[base];
        int32_t at = base;
        do {
            best = input[at] < best ? input[at] : best;
        } while (edgeq_step(p->reduced_size, p->reduced_stride, reduced, &at));
        *output++ = best;
    } while (edgeq_step(p->kept_size, p->kept_stride, kept, &base));
}
