#include "edgeq/elementwise.h"

void edgeq_prelu_s16(const edgeq_prelu_s16_params *p, const int16_t *a, const int64_t *b, int16_t *output) {
    edgeq_cursor at = {{0, 0, 0, 0}, 0, 0};
    do {
        for (int32_t i = 0; i < p->size[4]; i++) {
            const int32_t x = a[at.a + i * p->a_stride[4]];
            const int64_t product = x * (x >= 0 ? p->multiplier : b[at.b + i * p->b_stride[4]]);
            const int64_t half = INT64_C(1) << (p->shift - 1);
            const int64_t value = product < 0 ? -((half - product) >> p->shift) : (half + product) >> p->shift;
            *output++ = (int16_t)(value < INT16_MIN ? INT16_MIN : value > INT16_MAX ? INT16_MAX : value);
        }
    } while (edgeq_next(p->size, p->a_stride, p->b_stride, &at));
}
