#include "edgeq/arithmetic.h"
#include "edgeq/softmax.h"

/* 1 / (1 + a) for a in [0, 1), both Q0.31: three Newton steps in Q2.29, as gemmlowp computes it. */
static int32_t one_over_one_plus(int32_t a) {
    const int32_t half = (int32_t)(((int64_t)a + INT32_MAX + 1) / 2);
    int32_t x = 1515870810 + edgeq_doubling_high_mul(half, -1010580540);
    for (int i = 0; i < 3; i++) {
        const int32_t rest = (INT32_C(1) << 29) - edgeq_doubling_high_mul(half, x);
        x += edgeq_doubling_high_mul(x, rest) * 4;
    }
    return x >= (INT32_C(1) << 30) ? INT32_MAX : x * 2;
}

static int32_t leading_zeros(uint32_t x) {
    int32_t count = 0;
    while ((x & UINT32_C(0x80000000)) == 0) {
        x <<= 1;
        count++;
    }
    return count;
}

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
        const int32_t headroom = leading_zeros((uint32_t)sum);
        const uint32_t fraction = ((uint32_t)sum << headroom) - UINT32_C(0x80000000);
        const int32_t reciprocal = one_over_one_plus((int32_t)fraction);
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
