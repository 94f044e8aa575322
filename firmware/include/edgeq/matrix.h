/* Matrix products of activations, and normalization of rows. */
#ifndef EDGEQ_MATRIX_H
#define EDGEQ_MATRIX_H

#include "elementwise.h"

#include <stdint.h>

/* For each pair of matrices (loops as in elementwise.h): out[i][j] = sum over s of a[i * a_row + s * a_step] *
 * b[j * b_column + s * b_step], both without zero points; the output is m x n, the sum has k terms. */
typedef struct {
    EDGEQ_BROADCAST;
    int32_t m, n, k, a_row, a_step, b_column, b_step;
    int32_t a_offset, b_offset, multiplier, shift, output_offset, act_min, act_max;
} edgeq_batch_matmul_params;

void edgeq_batch_matmul_s8(const edgeq_batch_matmul_params *p, const int8_t *a, const int8_t *b, int8_t *output);
void edgeq_batch_matmul_s16(const edgeq_batch_matmul_params *p, const int16_t *a, const int16_t *b, int16_t *output);

typedef struct {
    int32_t rows, depth, input_offset;
} edgeq_l2_normalization_params;

/* Each row divided by its Euclidean length; output scale 1/128, zero point 0. */
void edgeq_l2_normalization_s8(const edgeq_l2_normalization_params *p, const int8_t *input, int8_t *output);

#endif
