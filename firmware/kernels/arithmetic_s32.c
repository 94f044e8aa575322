#include "edgeq/elementwise.h"

void edgeq_arithmetic_s32(const edgeq_arithmetic_params *p, const int32_t *a, const int32_t *b, int32_t *output) {
    edgeq_cursor at = {{0, 0, 0, 0}, 0, 0};
    do {
        for (int32_t i = 0; i < p->size[4]; i++) {
            const uint32_t x = (uint32_t)a[at.a + i * p->a_stride[4]];
            const uint32_t y = (uint32_t)b[at.b + i * p->b_stride[4]];
            const int32_t value = (int32_t)(p->operation == 0 ? x + y : p->operation == 1 ? x - y : x * y);
            *output++ = value < p->act_min ? p->act_min : value > p->act_max ? p->act_max : value;
        }
    } while (edgeq_next(p->size, p->a_stride, p->b_stride, &at));
}
