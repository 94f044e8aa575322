#include "edgeq/arithmetic.h"
#include "edgeq/elementwise.h"

void edgeq_squared_difference_s8(const edgeq_add_params *p, const int8_t *a, const int8_t *b, int8_t *output) {
    edgeq_cursor at = {{0, 0, 0, 0}, 0, 0};
    do {
        for (int32_t i = 0; i < p->size[4]; i++) {
            const int32_t x = (a[at.a + i * p->a_stride[4]] + p->a_offset) * (INT32_C(1) << p->left_shift);
            const int32_t y = (b[at.b + i * p->b_stride[4]] + p->b_offset) * (INT32_C(1) << p->left_shift);
            const int32_t scaled_x = edgeq_requantize(x, p->a_multiplier, p->a_shift);
            const int32_t scaled_y = edgeq_requantize(y, p->b_multiplier, p->b_shift);
            const int32_t difference = scaled_x - scaled_y;
            const int32_t square = edgeq_requantize(difference * difference, p->multiplier, p->shift);
            *output++ = (int8_t)edgeq_clamp(square + p->output_offset, p->act_min, p->act_max);
        }
    } while (edgeq_next(p->size, p->a_stride, p->b_stride, &at));
}
