#include "edgeq/arithmetic.h"
#include "edgeq/softmax.h"

static int32_t shifted_left(int32_t x, int32_t exponent) {
    const int32_t limit = (int32_t)((UINT32_C(1) << (31 - exponent)) - 1U);
    return x > limit ? INT32_MAX : x < -limit ? INT32_MIN : (int32_t)((uint32_t)x << exponent);
}

/* log(x) for x >= 1, Q12.19 in, Q5.26 out, by TFLM's steps: x = r * 2^e with r near sqrt(sqrt(1/2)), a quotient of
 * polynomials for log(r), e * log(2) besides. */
static int32_t logarithm(int32_t x) {
    const int32_t sqrt_half = 1518500250;
    const int32_t sqrt_sqrt_half = 1805811301;
    const int32_t quarter = INT32_C(1) << 23; /* Q6.25 */
    const int32_t a_zeros = edgeq_leading_zeros((uint32_t)x);
    const int32_t a = shifted_left(edgeq_doubling_high_mul(shifted_left(x, a_zeros - 1), sqrt_half), 1);
    const int32_t a_exponent = (12 - a_zeros) * (INT32_C(1) << 25) + quarter;
    const int32_t b_zeros = edgeq_leading_zeros((uint32_t)edgeq_doubling_high_mul(x, sqrt_half)) - 1;
    const int32_t b = shifted_left(x, b_zeros);
    const int32_t b_exponent = (12 - b_zeros) * (INT32_C(1) << 25) - quarter;
    const int32_t r = a < b ? a : b;
    const int32_t exponent = a_exponent > b_exponent ? a_exponent : b_exponent;

    const int32_t p = (int32_t)(((int64_t)r + sqrt_sqrt_half + 1) / 2);
    const int32_t q = (r - sqrt_sqrt_half) * 2;
    const int32_t square = edgeq_doubling_high_mul(q, q);
    const int32_t above =
        edgeq_doubling_high_mul(q, r) + edgeq_doubling_high_mul(edgeq_doubling_high_mul(q, square), 117049297);
    const int32_t below = edgeq_doubling_high_mul(p, 1057819769 + q + edgeq_doubling_high_mul(127690142, square)) +
                          edgeq_doubling_high_mul(638450708, q);
    const int32_t quotient = edgeq_doubling_high_mul(edgeq_rounding_shift(above, 6), edgeq_one_over_one_plus(below));
    return shifted_left(edgeq_doubling_high_mul(exponent, 1488522236) + quotient, 1);
}

void edgeq_log_softmax_s8(const edgeq_log_softmax_params *p, const int8_t *input, const int32_t *exponentials,
                          int8_t *output) {
    for (int32_t row = 0; row < p->rows; row++, input += p->depth, output += p->depth) {
        int32_t largest = INT8_MIN;
        for (int32_t i = 0; i < p->depth; i++) {
            largest = input[i] > largest ? input[i] : largest;
        }
        int32_t sum = 0; /* Q12.19 */
        for (int32_t i = 0; i < p->depth; i++) {
            if (largest - input[i] < p->entries) {
                sum += edgeq_rounding_shift(exponentials[largest - input[i]], 12);
            }
        }
        const int32_t log_sum = logarithm(sum);
        const int32_t reach = edgeq_requantize(log_sum + INT32_MIN, p->reverse_multiplier, p->reverse_shift);
        const int32_t limit = reach > p->lowest ? reach : p->lowest;
        for (int32_t i = 0; i < p->depth; i++) {
            const int32_t difference = input[i] - largest;
            int32_t value = -128;
            if (difference > limit) {
                const int32_t log_ratio = edgeq_requantize(difference, p->multiplier, p->shift) - log_sum;
                value = edgeq_clamp(edgeq_rounding_shift(log_ratio, 22) + 127, -128, 127);
            }
            output[i] = (int8_t)value;
        }
    }
}
