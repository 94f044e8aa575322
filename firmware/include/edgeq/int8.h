/* What a kernel that is written once for all types works on, here int8 activations: 32-bit accumulators and biases,
 * inputs with a zero point.
 *
 * The kernel's source includes this, names the function (KERNEL) and includes the body, edgeq/<kernel>_body.h. */
#ifndef EDGEQ_INT8_H
#define EDGEQ_INT8_H

#include "arithmetic.h"

#include <stdint.h>

typedef int8_t edgeq_element;
typedef int32_t edgeq_accumulator;

#define EDGEQ_LOWEST          INT8_MIN
#define EDGEQ_HIGHEST         INT8_MAX
#define EDGEQ_INPUT_OFFSET(p) (p)->input_offset

static inline int32_t edgeq_requantize_sum(edgeq_accumulator sum, int32_t multiplier, int32_t shift) {
    return edgeq_requantize(sum, multiplier, shift);
}

#endif
