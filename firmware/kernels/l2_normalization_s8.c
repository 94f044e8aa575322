#include "edgeq/arithmetic.h"
#include "edgeq/matrix.h"

static int32_t mul(int32_t a, int32_t b) {
    return edgeq_doubling_high_mul(a, b);
}

/* 1 / sqrt(x) as multiplier * 2^(*shift - 31): five Newton steps in Q3.28, as TFLM computes it; x >= 0. */
static int32_t inverse_root(int32_t x, int32_t *shift) {
    if (x <= 1) {
        *shift = 0;
        return INT32_MAX;
    }
    int32_t right = 11;
    while (x >= (1 << 29)) {
        x /= 4;
        right++;
    }
    while (x < (1 << 27)) {
        x *= 4;
        right--;
    }
    const int32_t half = edgeq_rounding_shift(x >> 1, 1);
    int32_t root = 1 << 28;
    for (int i = 0; i < 5; i++) {
        const int32_t cube = mul(mul(root, root), root) * 64;
        root = (mul((1 << 28) + (1 << 27), root) - mul(half, cube)) * 8;
    }
    root = mul(root, 1518500250);
    if (right < 0) {
        root = (int32_t)((uint32_t)root << -right);
        right = 0;
    }
    *shift = -right;
    return root;
}

void edgeq_l2_normalization_s8(const edgeq_l2_normalization_params *p, const int8_t *input, int8_t *output) {
    for (int32_t row = 0; row < p->rows; row++, input += p->depth, output += p->depth) {
        int32_t sum = 0;
        for (int32_t i = 0; i < p->depth; i++) {
            const int32_t x = input[i] + p->input_offset;
            sum += x * x;
        }
        int32_t shift;
        const int32_t multiplier = inverse_root(sum, &shift);
        for (int32_t i = 0; i < p->depth; i++) {
            const int32_t value = edgeq_requantize(input[i] + p->input_offset, multiplier, shift + 7);
            output[i] = (int8_t)edgeq_clamp(value, INT8_MIN, INT8_MAX);
        }
    }
}
