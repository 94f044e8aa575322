#include "edgeq/elementwise.h"

void edgeq_minimum_s8(const edgeq_broadcast *p, const int8_t *a, const int8_t *b, int8_t *output) {
    edgeq_cursor at = {{0, 0, 0, 0}, 0, 0};
    do {
        for (int32_t i = 0; i < p->size[4]; i++) {
            const int8_t x = a[at.a + i * p->a_stride[4]];
            const int8_t y = b[at.b + i * p->b_stride[4]];
            *output++ = x < y ? x : y;
        }
    } while (edgeq_next(p->size, p->a_stride, p->b_stride, &at));
}
