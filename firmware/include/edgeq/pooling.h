/* Pooling over NHWC tensors; input and output have the same scale and zero point. */
#ifndef EDGEQ_POOLING_H
#define EDGEQ_POOLING_H

#include <stdint.h>

typedef struct {
    int32_t batches, in_h, in_w, in_c, out_h, out_w;
    int32_t filter_h, filter_w, stride_h, stride_w, pad_top, pad_left;
    int32_t act_min, act_max;
} edgeq_pool_params;

/* The mean of the elements inside the input, rounded half away from zero. Outputs are written in ascending order. */
void edgeq_average_pool_2d_s8(const edgeq_pool_params *p, const int8_t *input, int8_t *output);
void edgeq_average_pool_2d_s16(const edgeq_pool_params *p, const int16_t *input, int16_t *output);

/* The largest of the elements inside the input. */
void edgeq_max_pool_2d_s8(const edgeq_pool_params *p, const int8_t *input, int8_t *output);
void edgeq_max_pool_2d_s16(const edgeq_pool_params *p, const int16_t *input, int16_t *output);

#endif
