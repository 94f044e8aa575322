/* Weights of 4 bits, two in a byte, the lower four bits first. */
#ifndef EDGEQ_WEIGHTS_4_H
#define EDGEQ_WEIGHTS_4_H

#include <stdint.h>

typedef uint8_t edgeq_weights;

static inline int32_t edgeq_weight(const edgeq_weights *weights, int32_t i) {
    const int32_t nibble = (weights[i >> 1] >> (4 * (i & 1))) & 0xF;
    return (nibble ^ 8) - 8;
}

#endif
