#include "edgeq/arithmetic.h"
#include "edgeq/choice.h"

static int32_t quotient(const edgeq_mul_params *p, int32_t x, int32_t y) {
    if (y == 0) {
        return x >= 0 ? p->act_max : p->act_min;
    }
    if (y < 0) {
        x = -x;
        y = -y;
    }
    const int32_t zeros = edgeq_leading_zeros((uint32_t)y);
    const int32_t inverse = edgeq_one_over_one_plus((int32_t)(((uint32_t)y << zeros) - UINT32_C(0x80000000)));
    int32_t headroom = 0;
    for (uint32_t sign = (uint32_t)(x < 0 ? ~x : x); headroom < 31 && (sign & UINT32_C(0x40000000)) == 0; sign <<= 1) {
        headroom++;
    }
    const int32_t unscaled = edgeq_doubling_high_mul((int32_t)((uint32_t)x << headroom), inverse);
    const int32_t right = headroom + 31 - zeros - p->shift;
    if (right > 31) { /* less than a half; TFLM shifts by more than a word has, which C leaves undefined */
        return p->output_offset;
    }
    return p->output_offset +
           edgeq_rounding_shift(edgeq_doubling_high_mul(unscaled, p->multiplier), right > 0 ? right : 0);
}

void edgeq_div_s8(const edgeq_mul_params *p, const int8_t *a, const int8_t *b, int8_t *output) {
    edgeq_cursor at = {{0, 0, 0, 0}, 0, 0};
    do {
        for (int32_t i = 0; i < p->size[4]; i++) {
            const int32_t value =
                quotient(p, a[at.a + i * p->a_stride[4]] + p->a_offset, b[at.b + i * p->b_stride[4]] + p->b_offset);
            *output++ = (int8_t)edgeq_clamp(value, p->act_min, p->act_max);
        }
    } while (edgeq_next(p->size, p->a_stride, p->b_stride, &at));
}
