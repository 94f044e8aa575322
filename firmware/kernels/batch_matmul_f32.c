#include "edgeq/float32.h"

void edgeq_batch_matmul_f32(const edgeq_batch_matmul_f32_params *p, const float *a, const float *b, float *output) {
    edgeq_cursor at = {{0, 0, 0, 0}, 0, 0};
    do {
        for (int32_t l = 0; l < p->size[4]; l++) {
            const float *left = a + at.a + l * p->a_stride[4];
            const float *right = b + at.b + l * p->b_stride[4];
            for (int32_t i = 0; i < p->m; i++) {
                for (int32_t j = 0; j < p->n; j++) {
                    float sum = 0.0f;
                    for (int32_t s = 0; s < p->k; s++) {
                        sum += left[i * p->a_row + s * p->a_step] * right[j * p->b_column + s * p->b_step];
                    }
                    *output++ = sum;
                }
            }
        }
    } while (edgeq_next(p->size, p->a_stride, p->b_stride, &at));
}
