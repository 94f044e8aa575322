/* Weights of 8 bits, for the kernels that are written once for all widths. */
#ifndef EDGEQ_WEIGHTS_8_H
#define EDGEQ_WEIGHTS_8_H

#include <stdint.h>

typedef int8_t edgeq_weights;

static inline int32_t edgeq_weight(const edgeq_weights *weights, int32_t i) {
    return weights[i];
}

#endif
