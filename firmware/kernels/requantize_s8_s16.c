#include "edgeq/arithmetic.h"
#include "edgeq/conversion.h"

void edgeq_requantize_s8_s16(const edgeq_requantize_params *p, const int8_t *input, int16_t *output) {
    for (int32_t i = 0; i < p->count; i++) {
        const int32_t value = edgeq_requantize(input[i] + p->input_offset, p->multiplier, p->shift);
        output[i] = (int16_t)edgeq_clamp(value + p->output_offset, p->low, p->high);
    }
}
