/* Element-wise kernels. Inputs broadcast by strides; outputs are written in ascending order, so that an input of the
 * output's shape may lie in the same place. */
#ifndef EDGEQ_ELEMENTWISE_H
#define EDGEQ_ELEMENTWISE_H

#include <stdint.h>

/* Loops over the output, outermost first; strides in elements, 0 along a broadcast dimension. */
#define EDGEQ_BROADCAST int32_t size[5], a_stride[5], b_stride[5]

typedef struct {
    EDGEQ_BROADCAST;
} edgeq_broadcast;

/* Where the outer four loops stand. */
typedef struct {
    int32_t index[4];
    int32_t a, b;
} edgeq_cursor;

/* Step to the next run of size[4] elements; 0 at the end. */
static inline int edgeq_next(const int32_t size[5], const int32_t a_stride[5], const int32_t b_stride[5],
                             edgeq_cursor *at) {
    for (int d = 3; d >= 0; d--) {
        at->a += a_stride[d];
        at->b += b_stride[d];
        if (++at->index[d] < size[d]) {
            return 1;
        }
        at->a -= a_stride[d] * size[d];
        at->b -= b_stride[d] * size[d];
        at->index[d] = 0;
    }
    return 0;
}

/* The definition of a kernel that makes `expression` of each pair of elements x, y of one type. */
#define EDGEQ_BINARY(name, params, type, result, expression)                                                           \
    void name(const params *p, const type *a, const type *b, result *output) {                                         \
        edgeq_cursor at = {{0, 0, 0, 0}, 0, 0};                                                                        \
        do {                                                                                                           \
            for (int32_t i = 0; i < p->size[4]; i++) {                                                                 \
                const type x = a[at.a + i * p->a_stride[4]];                                                           \
                const type y = b[at.b + i * p->b_stride[4]];                                                           \
                *output++ = (result)(expression);                                                                      \
            }                                                                                                          \
        } while (edgeq_next(p->size, p->a_stride, p->b_stride, &at));                                                  \
    }

/* output = table[byte] for count bytes of any 8-bit type. May work in place. */
void edgeq_lookup_8(const uint8_t table[256], const uint8_t *input, uint8_t *output, int32_t count);

/* Both inputs, without zero points, are shifted left and scaled to a common scale, summed (b_sign -1: subtracted)
 * and requantized. SQUARED_DIFFERENCE squares the difference before. */
typedef struct {
    EDGEQ_BROADCAST;
    int32_t left_shift;
    int32_t a_offset, a_multiplier, a_shift;
    int32_t b_offset, b_multiplier, b_shift, b_sign;
    int32_t multiplier, shift, output_offset, act_min, act_max;
} edgeq_add_params;

void edgeq_add_s8(const edgeq_add_params *p, const int8_t *a, const int8_t *b, int8_t *output);
void edgeq_add_s16(const edgeq_add_params *p, const int16_t *a, const int16_t *b, int16_t *output);
void edgeq_squared_difference_s8(const edgeq_add_params *p, const int8_t *a, const int8_t *b, int8_t *output);
void edgeq_squared_difference_s16(const edgeq_add_params *p, const int16_t *a, const int16_t *b, int16_t *output);

typedef struct {
    EDGEQ_BROADCAST;
    int32_t a_offset, b_offset, multiplier, shift, output_offset, act_min, act_max;
} edgeq_mul_params;

void edgeq_mul_s8(const edgeq_mul_params *p, const int8_t *a, const int8_t *b, int8_t *output);
void edgeq_mul_s16(const edgeq_mul_params *p, const int16_t *a, const int16_t *b, int16_t *output);

typedef struct {
    EDGEQ_BROADCAST;
    int32_t a_offset, b_offset, multiplier, shift, negative_multiplier, negative_shift, output_offset;
} edgeq_prelu_params;

/* a where it is not negative, else a * b. */
void edgeq_prelu_s8(const edgeq_prelu_params *p, const int8_t *a, const int8_t *b, int8_t *output);

typedef struct {
    EDGEQ_BROADCAST;
    int32_t shift;
    int64_t multiplier;
} edgeq_prelu_s16_params;

/* a * multiplier where a is not negative, else a * b; both in units of 2^-shift, rounded once, ties away from zero. */
void edgeq_prelu_s16(const edgeq_prelu_s16_params *p, const int16_t *a, const int64_t *b, int16_t *output);

/* x or, below 0, negative_sign * x, each with its own multiplier: RELU, LEAKY_RELU, ABS. May work in place. */
typedef struct {
    int32_t count, multiplier, shift, negative_sign, negative_multiplier, negative_shift;
} edgeq_two_slopes_params;

void edgeq_two_slopes_s16(const edgeq_two_slopes_params *p, const int16_t *input, int16_t *output);

/* 2^20 / sqrt(x) requantized; the largest value where x <= 0. May work in place. */
typedef struct {
    int32_t count, multiplier, shift;
} edgeq_rsqrt_params;

void edgeq_rsqrt_s16(const edgeq_rsqrt_params *p, const int16_t *input, int16_t *output);

/* A function in pieces: from starts[i] on, over 2^bits[i] inputs, a cubic in (x - start) / 2^bits with the coefficients
 * coefficients[4 * i ...], constant first, in units of 2^-28. May work in place. */
typedef struct {
    int32_t count, pieces;
} edgeq_curve_s16_params;

void edgeq_curve_s16(const edgeq_curve_s16_params *p, const int16_t *input, const int16_t *starts, const int8_t *bits,
                     const int64_t *coefficients, int16_t *output);

/* Inputs of one quantization, shifted left by 20 bits and scaled, are summed and requantized. */
typedef struct {
    int32_t inputs, count, input_offset, input_multiplier, input_shift, multiplier, shift, output_offset;
} edgeq_sum_n_params;

/* `inputs` tensors of `count` elements; at most 16. The output may lie in the place of any of them. */
void edgeq_add_n_s8(const edgeq_sum_n_params *p, const int8_t *const *inputs, int8_t *output);

/* Running sums along the middle of [outer][axis][inner]; exclusive: without the element itself. May work in place. */
typedef struct {
    int32_t outer, axis, inner, exclusive, reverse, left_shift;
    int32_t input_offset, input_multiplier, input_shift, multiplier, shift, output_offset;
} edgeq_cumsum_params;

void edgeq_cumsum_s8(const edgeq_cumsum_params *p, const int8_t *input, int8_t *output);

/* operation: 0 a + b, 1 a - b, 2 a * b, modulo 2^32, clamped. */
typedef struct {
    EDGEQ_BROADCAST;
    int32_t operation, act_min, act_max;
} edgeq_arithmetic_params;

void edgeq_arithmetic_s32(const edgeq_arithmetic_params *p, const int32_t *a, const int32_t *b, int32_t *output);

void edgeq_maximum_s8(const edgeq_broadcast *p, const int8_t *a, const int8_t *b, int8_t *output);
void edgeq_maximum_s16(const edgeq_broadcast *p, const int16_t *a, const int16_t *b, int16_t *output);
void edgeq_maximum_s32(const edgeq_broadcast *p, const int32_t *a, const int32_t *b, int32_t *output);
void edgeq_minimum_s8(const edgeq_broadcast *p, const int8_t *a, const int8_t *b, int8_t *output);
void edgeq_minimum_s16(const edgeq_broadcast *p, const int16_t *a, const int16_t *b, int16_t *output);
void edgeq_minimum_s32(const edgeq_broadcast *p, const int32_t *a, const int32_t *b, int32_t *output);

#endif
