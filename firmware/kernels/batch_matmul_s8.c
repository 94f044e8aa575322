#include "edgeq/arithmetic.h"
#include "edgeq/matrix.h"

void edgeq_batch_matmul_s8(const edgeq_batch_matmul_params *p, const int8_t *a, const int8_t *b, int8_t *output) {
    edgeq_cursor at = {{0, 0, 0, 0}, 0, 0};
    do {
        for (int32_t l = 0; l < p->size[4]; l++) {
            const int8_t *left = a + at.a + l * p->a_stride[4];
            const int8_t *right = b + at.b + l * p->b_stride[4];
            for (int32_t i = 0; i < p->m; i++) {
                for (int32_t j = 0; j < p->n; j++) {
                    int32_t sum = 0;
                    for (int32_t s = 0; s < p->k; s++) {
                        sum += (left[i * p->a_row + s * p->a_step] + p->a_offset) *
                               (right[j * p->b_column + s * p->b_step] + p->b_offset);
                    }
                    const int32_t value = edgeq_requantize(sum, p->multiplier, p->shift) + p->output_offset;
                    *output++ = (int8_t)edgeq_clamp(value, p->act_min, p->act_max);
                }
            }
        }
    } while (edgeq_next(p->size, p->a_stride, p->b_stride, &at));
}
