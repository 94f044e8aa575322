#include "edgeq/arithmetic.h"
#include "edgeq/elementwise.h"

void edgeq_prelu_s8(const edgeq_prelu_params *p, const int8_t *a, const int8_t *b, int8_t *output) {
    edgeq_cursor at = {{0, 0, 0, 0}, 0, 0};
    do {
        for (int32_t i = 0; i < p->size[4]; i++) {
            const int32_t x = a[at.a + i * p->a_stride[4]] + p->a_offset;
            const int32_t alpha = b[at.b + i * p->b_stride[4]] + p->b_offset;
            const int32_t value = x >= 0 ? edgeq_requantize(x, p->multiplier, p->shift)
                                         : edgeq_requantize(x * alpha, p->negative_multiplier, p->negative_shift);
            *output++ = (int8_t)edgeq_clamp(value + p->output_offset, INT8_MIN, INT8_MAX);
        }
    } while (edgeq_next(p->size, p->a_stride, p->b_stride, &at));
}
