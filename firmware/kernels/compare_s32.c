#include "edgeq/choice.h"

void edgeq_compare_s32(const edgeq_compare_params *p, const int32_t *a, const int32_t *b, uint8_t *output) {
    edgeq_cursor at = {{0, 0, 0, 0}, 0, 0};
    do {
        for (int32_t i = 0; i < p->size[4]; i++) {
            *output++ = edgeq_relation(p->relation, a[at.a + i * p->a_stride[4]], b[at.b + i * p->b_stride[4]]);
        }
    } while (edgeq_next(p->size, p->a_stride, p->b_stride, &at));
}
