/* Reductions: for each element of the kept loops, over all elements of the reduced loops; strides in elements. */
#ifndef EDGEQ_REDUCTION_H
#define EDGEQ_REDUCTION_H

#include <stdint.h>

#define EDGEQ_REDUCTION int32_t kept_size[4], kept_stride[4], reduced_size[4], reduced_stride[4]

typedef struct {
    EDGEQ_REDUCTION;
} edgeq_reduce_params;

/* start: what the sum begins with (the zero points); the sum is requantized. */
typedef struct {
    EDGEQ_REDUCTION;
    int32_t start, multiplier, shift, output_offset, act_min, act_max;
} edgeq_sum_params;

typedef struct {
    EDGEQ_REDUCTION;
    int32_t input_offset, limits, output_offset;
} edgeq_reduce_prod_params;

/* Step a loop of four dimensions; 0 at the end, where everything is 0 again. */
static inline int edgeq_step(const int32_t size[4], const int32_t stride[4], int32_t index[4], int32_t *at) {
    for (int d = 3; d >= 0; d--) {
        *at += stride[d];
        if (++index[d] < size[d]) {
            return 1;
        }
        *at -= stride[d] * size[d];
        index[d] = 0;
    }
    return 0;
}

void edgeq_sum_s8(const edgeq_sum_params *p, const int8_t *input, int8_t *output);
void edgeq_sum_s16(const edgeq_sum_params *p, const int16_t *input, int16_t *output);
/* The definition of a kernel that takes the value which stands in `relation` to all others. */
#define EDGEQ_REDUCE_PICK(name, type, relation)                                                                        \
    void name(const edgeq_reduce_params *p, const type *input, type *output) {                                         \
        int32_t kept[4] = {0, 0, 0, 0};                                                                                \
        int32_t reduced[4] = {0, 0, 0, 0};                                                                             \
        int32_t base = 0;                                                                                              \
        do {                                                                                                           \
            int32_t at = base;                                                                                         \
            type best = input[at];                                                                                     \
            do {                                                                                                       \
                best = input[at] relation best ? input[at] : best;                                                     \
            } while (edgeq_step(p->reduced_size, p->reduced_stride, reduced, &at));                                    \
            *output++ = best;                                                                                          \
        } while (edgeq_step(p->kept_size, p->kept_stride, kept, &base));                                               \
    }

void edgeq_reduce_max_s8(const edgeq_reduce_params *p, const int8_t *input, int8_t *output);
void edgeq_reduce_max_s16(const edgeq_reduce_params *p, const int16_t *input, int16_t *output);
void edgeq_reduce_max_u8(const edgeq_reduce_params *p, const uint8_t *input, uint8_t *output);
void edgeq_reduce_min_u8(const edgeq_reduce_params *p, const uint8_t *input, uint8_t *output);
void edgeq_reduce_min_s8(const edgeq_reduce_params *p, const int8_t *input, int8_t *output);
void edgeq_reduce_min_s16(const edgeq_reduce_params *p, const int16_t *input, int16_t *output);

/* The product of the values without zero points. `limits` ascend: limits[i] is the smallest magnitude of a product that
 * rounds to i + 1 steps of the output. */
void edgeq_reduce_prod_s8(const edgeq_reduce_prod_params *p, const int8_t *input, const int64_t *limits,
                          int8_t *output);

#endif
