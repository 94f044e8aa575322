/* Comparisons, logic, selection, positions of extremes, casts, resizing. A bool is a byte, 0 or 1. */
#ifndef EDGEQ_CHOICE_H
#define EDGEQ_CHOICE_H

#include "elementwise.h"

#include <stdint.h>

/* relation: 0 ==, 1 !=, 2 >, 3 >=, 4 <, 5 <=. The rest scales int8 inputs to real units with 8 bits of headroom. */
typedef struct {
    EDGEQ_BROADCAST;
    int32_t relation;
    int32_t a_offset, a_multiplier, a_shift, b_offset, b_multiplier, b_shift;
} edgeq_compare_params;

/* Whether x and y, of any type, stand in a relation. */
#define EDGEQ_HOLDS(relation, x, y)                                                                                    \
    ((relation) == 0   ? (x) == (y)                                                                                    \
     : (relation) == 1 ? (x) != (y)                                                                                    \
     : (relation) == 2 ? (x) > (y)                                                                                     \
     : (relation) == 3 ? (x) >= (y)                                                                                    \
     : (relation) == 4 ? (x) < (y)                                                                                     \
                       : (x) <= (y))

void edgeq_compare_s8(const edgeq_compare_params *p, const int8_t *a, const int8_t *b, uint8_t *output);
void edgeq_compare_s32(const edgeq_compare_params *p, const int32_t *a, const int32_t *b, uint8_t *output);
void edgeq_compare_u8(const edgeq_compare_params *p, const uint8_t *a, const uint8_t *b, uint8_t *output);
void edgeq_compare_f32(const edgeq_compare_params *p, const float *a, const float *b, uint8_t *output);

void edgeq_logical_and(const edgeq_broadcast *p, const uint8_t *a, const uint8_t *b, uint8_t *output);
void edgeq_logical_or(const edgeq_broadcast *p, const uint8_t *a, const uint8_t *b, uint8_t *output);
void edgeq_logical_not(const uint8_t *input, uint8_t *output, int32_t count);

/* a / b by TFLM's fixed-point reciprocal; b == 0 gives the extreme of a's sign. */
void edgeq_div_s8(const edgeq_mul_params *p, const int8_t *a, const int8_t *b, int8_t *output);

/* condition ? a : b for elements of any size; strides in elements, 0 along a broadcast dimension. */
typedef struct {
    int32_t size[5], condition_stride[5], a_stride[5], b_stride[5];
    int32_t element_bytes;
} edgeq_select_params;

void edgeq_select(const edgeq_select_params *p, const uint8_t *condition, const uint8_t *a, const uint8_t *b,
                  uint8_t *output);

/* The first position of the largest (sign 1) or smallest (sign -1) value along the middle of three dimensions. */
typedef struct {
    int32_t outer, axis, inner, sign;
} edgeq_arg_params;

/* The definition of a kernel that finds such positions. */
#define EDGEQ_ARG_EXTREMUM(name, type)                                                                                 \
    void name(const edgeq_arg_params *p, const type *input, int32_t *output) {                                         \
        const type sign = (type)p->sign;                                                                               \
        for (int32_t o = 0; o < p->outer; o++, input += p->axis * p->inner) {                                          \
            for (int32_t i = 0; i < p->inner; i++) {                                                                   \
                int32_t best = 0;                                                                                      \
                for (int32_t k = 1; k < p->axis; k++) {                                                                \
                    if (sign * input[k * p->inner + i] > sign * input[best * p->inner + i]) {                          \
                        best = k;                                                                                      \
                    }                                                                                                  \
                }                                                                                                      \
                *output++ = best;                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
    }

void edgeq_arg_extremum_f32(const edgeq_arg_params *p, const float *input, int32_t *output);
void edgeq_arg_extremum_s8(const edgeq_arg_params *p, const int8_t *input, int32_t *output);

/* The definition of a cast: each element x becomes `expression`. A float beyond the range takes the nearest value; u8
 * is a bool. */
#define EDGEQ_CAST(name, from, to, expression)                                                                         \
    void name(const from *input, to *output, int32_t count) {                                                          \
        for (int32_t i = 0; i < count; i++) {                                                                          \
            const from x = input[i];                                                                                   \
            output[i] = (to)(expression);                                                                              \
        }                                                                                                              \
    }

void edgeq_cast_s8_s16(const int8_t *input, int16_t *output, int32_t count);
void edgeq_cast_s8_s32(const int8_t *input, int32_t *output, int32_t count);
void edgeq_cast_s8_f32(const int8_t *input, float *output, int32_t count);
void edgeq_cast_s8_u8(const int8_t *input, uint8_t *output, int32_t count);
void edgeq_cast_s16_s8(const int16_t *input, int8_t *output, int32_t count);
void edgeq_cast_s16_s32(const int16_t *input, int32_t *output, int32_t count);
void edgeq_cast_s16_f32(const int16_t *input, float *output, int32_t count);
void edgeq_cast_s16_u8(const int16_t *input, uint8_t *output, int32_t count);
void edgeq_cast_s32_s8(const int32_t *input, int8_t *output, int32_t count);
void edgeq_cast_s32_s16(const int32_t *input, int16_t *output, int32_t count);
void edgeq_cast_s32_f32(const int32_t *input, float *output, int32_t count);
void edgeq_cast_s32_u8(const int32_t *input, uint8_t *output, int32_t count);
void edgeq_cast_f32_s8(const float *input, int8_t *output, int32_t count);
void edgeq_cast_f32_s16(const float *input, int16_t *output, int32_t count);
void edgeq_cast_f32_s32(const float *input, int32_t *output, int32_t count);
void edgeq_cast_f32_u8(const float *input, uint8_t *output, int32_t count);
void edgeq_cast_u8_s8(const uint8_t *input, int8_t *output, int32_t count);
void edgeq_cast_u8_s16(const uint8_t *input, int16_t *output, int32_t count);
void edgeq_cast_u8_s32(const uint8_t *input, int32_t *output, int32_t count);
void edgeq_cast_u8_f32(const uint8_t *input, float *output, int32_t count);

/* rows, columns: for each output position the source positions before and after it and the second one's weight in
 * 1/1024. */
typedef struct {
    int32_t batches, in_h, in_w, channels, out_h, out_w;
} edgeq_resize_params;

void edgeq_resize_bilinear_s8(const edgeq_resize_params *p, const int8_t *input, const int32_t *rows,
                              const int32_t *columns, int8_t *output);

/* The same with weights in 1/row_units and 1/column_units; each result is rounded once, half away from zero. */
typedef struct {
    int32_t batches, in_h, in_w, channels, out_h, out_w;
    int32_t row_units, column_units;
} edgeq_resize_s16_params;

void edgeq_resize_bilinear_s16(const edgeq_resize_s16_params *p, const int16_t *input, const int32_t *rows,
                               const int32_t *columns, int16_t *output);

#endif
