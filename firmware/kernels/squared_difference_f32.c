#include "edgeq/float32.h"

void edgeq_squared_difference_f32(const edgeq_broadcast_f32 *p, const float *a, const float *b, float *output) {
    edgeq_cursor at = {{0, 0, 0, 0}, 0, 0};
    do {
        for (int32_t i = 0; i < p->size[4]; i++) {
            const float x = a[at.a + i * p->a_stride[4]];
            const float y = b[at.b + i * p->b_stride[4]];
            *output++ = (x - y) * (x - y);
        }
    } while (edgeq_next(p->size, p->a_stride, p->b_stride, &at));
}
