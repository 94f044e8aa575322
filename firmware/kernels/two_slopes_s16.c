#include "edgeq/arithmetic.h"
#include "edgeq/elementwise.h"

void edgeq_two_slopes_s16(const edgeq_two_slopes_params *p, const int16_t *input, int16_t *output) {
    for (int32_t i = 0; i < p->count; i++) {
        const int32_t x = input[i];
        const int32_t value = x >= 0
                                  ? edgeq_requantize(x, p->multiplier, p->shift)
                                  : edgeq_requantize(x * p->negative_sign, p->negative_multiplier, p->negative_shift);
        output[i] = (int16_t)edgeq_clamp(value, INT16_MIN, INT16_MAX);
    }
}
