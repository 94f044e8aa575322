/* Kernels that order values or move bytes to and from places known only at run time. */
#ifndef EDGEQ_INDEXING_H
#define EDGEQ_INDEXING_H

#include <stdint.h>

/* The `k` largest of each row of `depth` values in descending order, equal ones by position; and their positions. */
typedef struct {
    int32_t rows, depth, k;
} edgeq_top_k_params;

void edgeq_top_k_s8(const edgeq_top_k_params *p, const int8_t *input, int8_t *values, int32_t *positions);
void edgeq_top_k_s16(const edgeq_top_k_params *p, const int16_t *input, int16_t *values, int32_t *positions);

/* [outer][depth][inner] elements: `on` at the depth that [outer][inner] indices name, else `off`; an index
 * outside of the depth names none. */
typedef struct {
    int32_t outer, depth, inner, element_bytes;
} edgeq_one_hot_params;

void edgeq_one_hot(const edgeq_one_hot_params *p, const int32_t *indices, const uint8_t *on, const uint8_t *off,
                   uint8_t *output);

/* `count` runs of `run_bytes`, each at `rank` indices with the given sizes and strides in bytes; an index outside
 * takes the nearest inside. */
typedef struct {
    int32_t rank, size[6], stride[6];
    int32_t count, run_bytes;
} edgeq_gather_nd_params;

void edgeq_gather_nd(const edgeq_gather_nd_params *p, const uint8_t *input, const int32_t *indices, uint8_t *output);

/* output = input with `update` (size[6] elements) written at `start`, which is clamped to 0..last so that all of it
 * fits; strides in bytes. The output may be the input. */
typedef struct {
    int32_t rank, size[6], last[6], stride[6];
    int32_t element_bytes, total_bytes;
} edgeq_update_slice_params;

void edgeq_update_slice(const edgeq_update_slice_params *p, const uint8_t *input, const uint8_t *update,
                        const int32_t *start, uint8_t *output);

#endif
