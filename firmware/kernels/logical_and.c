#include "edgeq/choice.h"

void edgeq_logical_and(const edgeq_broadcast *p, const uint8_t *a, const uint8_t *b, uint8_t *output) {
    edgeq_cursor at = {{0, 0, 0, 0}, 0, 0};
    do {
        for (int32_t i = 0; i < p->size[4]; i++) {
            *output++ = a[at.a + i * p->a_stride[4]] != 0 && b[at.b + i * p->b_stride[4]] != 0;
        }
    } while (edgeq_next(p->size, p->a_stride, p->b_stride, &at));
}
