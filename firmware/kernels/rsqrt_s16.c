#include "edgeq/arithmetic.h"
#include "edgeq/elementwise.h"

/* round(2^20 / sqrt(x)) for x >= 1: Newton's steps in Q3.28 on x scaled by a power of four, as TFLM computes it. */
static int32_t inverse_root(int32_t x) {
    if (x == 1) {
        return INT32_C(1) << 20;
    }
    const int32_t pairs = (edgeq_leading_zeros((uint32_t)x) - 1) / 2 - 1;
    const int32_t half = edgeq_rounding_shift((int32_t)((uint32_t)x << (2 * pairs)) >> 1, 1);
    int32_t root = INT32_C(1) << 28;
    for (int i = 0; i < 5; i++) {
        const int32_t cube = edgeq_doubling_high_mul(edgeq_doubling_high_mul(root, root), root) * 64;
        const int32_t step = edgeq_doubling_high_mul(402653184, root) - edgeq_doubling_high_mul(half, cube);
        root = step * 8;
    }
    return edgeq_requantize(1, edgeq_doubling_high_mul(root, 1518500250), 20 - (11 - pairs));
}

void edgeq_rsqrt_s16(const edgeq_rsqrt_params *p, const int16_t *input, int16_t *output) {
    for (int32_t i = 0; i < p->count; i++) {
        int32_t value = INT16_MAX;
        if (input[i] > 0) {
            value = edgeq_clamp(edgeq_requantize(inverse_root(input[i]), p->multiplier, p->shift), 0, INT16_MAX);
        }
        output[i] = (int16_t)value;
    }
}
