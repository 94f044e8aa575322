#include "edgeq/arithmetic.h"
#include "edgeq/softmax.h"

void edgeq_softmax_s8(const edgeq_softmax_params *p, const int8_t *input, const int32_t *exponentials, int8_t *output) {
    for (int32_t row = 0; row < p->rows; row++, input += p->depth, output += p->depth) {
        int32_t largest = INT8_MIN;
        for (int32_t i = 0; i < p->depth; i++) {
            largest = input[i] > largest ? input[i] : largest;
        }
        int32_t sum = 0; /* Q12.19 */
        for (int32_t i = 0; i < p->depth; i++) {
            const int32_t distance = largest - input[i];
            if (distance < p->entries) {
                sum += edgeq_rounding_shift(exponentials[distance], 12);
            }
        }
        const int32_t headroom = edgeq_leading_zeros((uint32_t)sum);
        const uint32_t fraction = ((uint32_t)sum << headroom) - UINT32_C(0x80000000);
        const int32_t reciprocal = edgeq_one_over_one_plus((int32_t)fraction);
        const int32_t shift = 12 - headroom + 31 - 8;
        for (int32_t i = 0; i < p->depth; i++) {
            const int32_t distance = largest - input[i];
            int32_t value = 0;
            if (distance < p->entries) {
                value = edgeq_rounding_shift(edgeq_doubling_high_mul(reciprocal, exponentials[distance]), shift);
            }
            output[i] = (int8_t)edgeq_clamp(value - 128, -128, 127);
        }
    }
}
