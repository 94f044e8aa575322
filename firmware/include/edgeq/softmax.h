/* Softmax over rows of `depth` elements; exponentials[d] = exp(-beta * scale * d) in Q0.31, 0 beyond `entries`. */
#ifndef EDGEQ_SOFTMAX_H
#define EDGEQ_SOFTMAX_H

#include <stdint.h>

typedef struct {
    int32_t rows, depth, entries;
} edgeq_softmax_params;

/* Output scale 1/256, zero point -128. May work in place. */
void edgeq_softmax_s8(const edgeq_softmax_params *p, const int8_t *input, const int32_t *exponentials, int8_t *output);

#endif
