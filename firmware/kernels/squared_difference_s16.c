#include "edgeq/arithmetic.h"
#include "edgeq/elementwise.h"

void edgeq_squared_difference_s16(const edgeq_add_params *p, const int16_t *a, const int16_t *b, int16_t *output) {
    edgeq_cursor at = {{0, 0, 0, 0}, 0, 0};
    do {
        for (int32_t i = 0; i < p->size[4]; i++) {
            const int32_t x = edgeq_requantize(a[at.a + i * p->a_stride[4]], p->a_multiplier, p->a_shift);
            const int32_t y = edgeq_requantize(b[at.b + i * p->b_stride[4]], p->b_multiplier, p->b_shift);
            const int32_t square = edgeq_requantize((x - y) * (x - y), p->multiplier, p->shift);
            *output++ = (int16_t)edgeq_clamp(square, p->act_min, p->act_max);
        }
    } while (edgeq_next(p->size, p->a_stride, p->b_stride, &at));
}
