/* The kernel BATCH_MATMUL for the element type of int8.h or int16.h. */
#include "matrix.h"

void KERNEL(const edgeq_batch_matmul_params *p, const edgeq_element *a, const edgeq_element *b, edgeq_element *output) {
    edgeq_cursor at = {{0, 0, 0, 0}, 0, 0};
    do {
        for (int32_t l = 0; l < p->size[4]; l++) {
            const edgeq_element *left = a + at.a + l * p->a_stride[4];
            const edgeq_element *right = b + at.b + l * p->b_stride[4];
            for (int32_t i = 0; i < p->m; i++) {
                for (int32_t j = 0; j < p->n; j++) {
                    edgeq_accumulator sum = 0;
                    for (int32_t s = 0; s < p->k; s++) {
                        sum += (left[i * p->a_row + s * p->a_step] + p->a_offset) *
                               (right[j * p->b_column + s * p->b_step] + p->b_offset);
                    }
                    const int32_t value = edgeq_requantize_sum(sum, p->multiplier, p->shift) + p->output_offset;
                    *output++ = (edgeq_element)edgeq_clamp(value, p->act_min, p->act_max);
                }
            }
        }
    } while (edgeq_next(p->size, p->a_stride, p->b_stride, &at));
}
