#include "edgeq/float32.h"

static uint8_t relation_holds(int32_t relation, float x, float y) {
    switch (relation) {
    case 0:
        return x == y;
    case 1:
        return x != y;
    case 2:
        return x > y;
    case 3:
        return x >= y;
    case 4:
        return x < y;
    default:
        return x <= y;
    }
}

void edgeq_compare_f32(const edgeq_compare_f32_params *p, const float *a, const float *b, uint8_t *output) {
    edgeq_cursor at = {{0, 0, 0, 0}, 0, 0};
    do {
        for (int32_t i = 0; i < p->size[4]; i++) {
            *output++ = relation_holds(p->relation, a[at.a + i * p->a_stride[4]], b[at.b + i * p->b_stride[4]]);
        }
    } while (edgeq_next(p->size, p->a_stride, p->b_stride, &at));
}
