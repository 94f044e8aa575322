#include "edgeq/reduction.h"

void edgeq_reduce_max_s8(const edgeq_reduce_params *p, const int8_t *input, int8_t *output) {
    int32_t kept[4] = {0, 0, 0, 0};
    int32_t reduced[4] = {0, 0, 0, 0};
    int32_t base = 0;
    do {
        int32_t at = base;
        int8_t best = input[at];
        do {
            best = input[at] > best ? input[at] : best;
        } while (edgeq_step(p->reduced_size, p->reduced_stride, reduced, &at));
        *output++ = best;
    } while (edgeq_step(p->kept_size, p->kept_stride, kept, &base));
}
