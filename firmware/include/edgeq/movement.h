/* Kernels that move bytes of any type. Input and output do not overlap. */
#ifndef EDGEQ_MOVEMENT_H
#define EDGEQ_MOVEMENT_H

#include <stdint.h>

/* Six loops, outermost first, around a run of bytes; strides and starts in bytes, strides may be negative. */
typedef struct {
    int32_t size[6], input_stride[6], output_stride[6];
    int32_t input_start, output_start, run_bytes;
} edgeq_copy_params;

void edgeq_copy(const edgeq_copy_params *p, const uint8_t *input, uint8_t *output);

/* Five loops around a run of bytes; the output is written in order. `offsets` holds for each loop in turn size[loop]
 * byte offsets into the input. */
typedef struct {
    int32_t size[5];
    int32_t run_bytes;
} edgeq_copy_indexed_params;

void edgeq_copy_indexed(const edgeq_copy_indexed_params *p, const uint8_t *input, const int32_t *offsets,
                        uint8_t *output);

/* `count` runs of `run_bytes` for each of `outer` blocks of `axis` runs; an index outside takes the nearest inside.
 * `shared` blocks in a row use the same indices. */
typedef struct {
    int32_t outer, shared, axis, count, run_bytes;
} edgeq_gather_params;

void edgeq_gather(const edgeq_gather_params *p, const uint8_t *input, const int32_t *indices, uint8_t *output);

/* `count` copies of the `element_bytes` bytes at value. */
void edgeq_fill(const uint8_t *value, int32_t element_bytes, uint8_t *output, int32_t count);

#endif
