#include "edgeq/arithmetic.h"
#include "edgeq/choice.h"

void edgeq_compare_s8(const edgeq_compare_params *p, const int8_t *a, const int8_t *b, uint8_t *output) {
    edgeq_cursor at = {{0, 0, 0, 0}, 0, 0};
    do {
        for (int32_t i = 0; i < p->size[4]; i++) {
            const int32_t x = (a[at.a + i * p->a_stride[4]] + p->a_offset) * 256;
            const int32_t y = (b[at.b + i * p->b_stride[4]] + p->b_offset) * 256;
            const int32_t scaled_x = edgeq_requantize(x, p->a_multiplier, p->a_shift);
            const int32_t scaled_y = edgeq_requantize(y, p->b_multiplier, p->b_shift);
            *output++ = EDGEQ_HOLDS(p->relation, scaled_x, scaled_y);
        }
    } while (edgeq_next(p->size, p->a_stride, p->b_stride, &at));
}
