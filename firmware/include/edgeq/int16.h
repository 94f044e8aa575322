/* What a kernel that is written once for all types works on, here int16 activations: 64-bit accumulators and biases,
 * inputs without a zero point.
 *
 * The kernel's source includes this, names the function (KERNEL) and includes the body, edgeq/<kernel>_body.h. */
#ifndef EDGEQ_INT16_H
#define EDGEQ_INT16_H

#include "arithmetic.h"

#include <stdint.h>

typedef int16_t edgeq_element;
typedef int64_t edgeq_accumulator;

#define EDGEQ_LOWEST          INT16_MIN
#define EDGEQ_HIGHEST         INT16_MAX
#define EDGEQ_INPUT_OFFSET(p) 0

static inline int32_t edgeq_requantize_sum(edgeq_accumulator sum, int32_t multiplier, int32_t shift) {
    return edgeq_requantize_64(sum, multiplier, shift);
}

#endif
