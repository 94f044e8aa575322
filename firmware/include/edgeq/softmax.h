/* Softmax over rows of `depth` elements; exponentials[d] = exp(-beta * scale * d) in Q0.31, 0 beyond `entries`. */
#ifndef EDGEQ_SOFTMAX_H
#define EDGEQ_SOFTMAX_H

#include "arithmetic.h"

#include <stdint.h>

typedef struct {
    int32_t rows, depth, entries;
} edgeq_softmax_params;

/* Output scale 1/256, zero point -128. May work in place. */
void edgeq_softmax_s8(const edgeq_softmax_params *p, const int8_t *input, const int32_t *exponentials, int8_t *output);

/* Distances d below `lowest` give -128; multiplier and shift bring d into Q5.26, the reverse ones back. */
typedef struct {
    int32_t rows, depth, entries;
    int32_t multiplier, shift, reverse_multiplier, reverse_shift, lowest;
} edgeq_log_softmax_params;

/* Output scale 1/16, zero point 127. May work in place. */
void edgeq_log_softmax_s8(const edgeq_log_softmax_params *p, const int8_t *input, const int32_t *exponentials,
                          int8_t *output);

typedef struct {
    int32_t rows, depth, multiplier, shift;
} edgeq_softmax_s16_params;

/* 16x8: exponentials of [-10, 0] and 1 / (1 + x) of [0, 1], 513 samples each in Q0.15; multiplier and shift bring a
 * distance from the row's largest into units of 10 / 65535. Output in Q0.15. May work in place. */
void edgeq_softmax_s16(const edgeq_softmax_s16_params *p, const int16_t *input, const int16_t *exponentials,
                       const int16_t *reciprocals, int16_t *output);

#endif
