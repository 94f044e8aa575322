/* The kernel ADD for the element type of int8.h or int16.h. */
#include "elementwise.h"

void KERNEL(const edgeq_add_params *p, const edgeq_element *a, const edgeq_element *b, edgeq_element *output) {
    edgeq_cursor at = {{0, 0, 0, 0}, 0, 0};
    do {
        for (int32_t i = 0; i < p->size[4]; i++) {
            const int32_t x = (a[at.a + i * p->a_stride[4]] + p->a_offset) * (INT32_C(1) << p->left_shift);
            const int32_t y = (b[at.b + i * p->b_stride[4]] + p->b_offset) * (INT32_C(1) << p->left_shift);
            const int32_t scaled_x = edgeq_requantize(x, p->a_multiplier, p->a_shift);
            const int32_t scaled_y = edgeq_requantize(y, p->b_multiplier, p->b_shift);
            const int32_t sum = edgeq_requantize(scaled_x + p->b_sign * scaled_y, p->multiplier, p->shift);
            *output++ = (edgeq_element)edgeq_clamp(sum + p->output_offset, p->act_min, p->act_max);
        }
    } while (edgeq_next(p->size, p->a_stride, p->b_stride, &at));
}
