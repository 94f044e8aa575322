/* The kernel MUL for the element type of int8.h or int16.h. */
#include "elementwise.h"

void KERNEL(const edgeq_mul_params *p, const edgeq_element *a, const edgeq_element *b, edgeq_element *output) {
    edgeq_cursor at = {{0, 0, 0, 0}, 0, 0};
    do {
        for (int32_t i = 0; i < p->size[4]; i++) {
            const int32_t product =
                (a[at.a + i * p->a_stride[4]] + p->a_offset) * (b[at.b + i * p->b_stride[4]] + p->b_offset);
            const int32_t value = edgeq_requantize(product, p->multiplier, p->shift) + p->output_offset;
            *output++ = (edgeq_element)edgeq_clamp(value, p->act_min, p->act_max);
        }
    } while (edgeq_next(p->size, p->a_stride, p->b_stride, &at));
}
