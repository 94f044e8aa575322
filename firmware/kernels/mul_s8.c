#include "edgeq/arithmetic.h"
#include "edgeq/elementwise.h"

void edgeq_mul_s8(const edgeq_mul_params *p, const int8_t *a, const int8_t *b, int8_t *output) {
    edgeq_cursor at = {{0, 0, 0, 0}, 0, 0};
    do {
        for (int32_t i = 0; i < p->size[4]; i++) {
            const int32_t product =
                (a[at.a + i * p->a_stride[4]] + p->a_offset) * (b[at.b + i * p->b_stride[4]] + p->b_offset);
            const int32_t value = edgeq_requantize(product, p->multiplier, p->shift) + p->output_offset;
            *output++ = (int8_t)edgeq_clamp(value, p->act_min, p->act_max);
        }
    } while (edgeq_next(p->size, p->a_stride, p->b_stride, &at));
}
