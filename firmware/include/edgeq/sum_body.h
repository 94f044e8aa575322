/* The kernel SUM for the element type of int8.h or int16.h. */
#include "reduction.h"

void KERNEL(const edgeq_sum_params *p, const edgeq_element *input, edgeq_element *output) {
    int32_t kept[4] = {0, 0, 0, 0};
    int32_t reduced[4] = {0, 0, 0, 0};
    int32_t base = 0;
    do {
        int32_t sum = p->start;
        int32_t at = base;
        do {
            sum += input[at];
        } while (edgeq_step(p->reduced_size, p->reduced_stride, reduced, &at));
        const int32_t value = edgeq_requantize(sum, p->multiplier, p->shift) + p->output_offset;
        *output++ = (edgeq_element)edgeq_clamp(value, p->act_min, p->act_max);
    } while (edgeq_step(p->kept_size, p->kept_stride, kept, &base));
}
