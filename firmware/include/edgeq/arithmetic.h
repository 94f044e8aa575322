/* Fixed-point arithmetic of TensorFlow Lite Micro, byte for byte (two roundings).
 *
 * A right shift of a negative value must be arithmetic, as it is in every compiler that EdgeQ supports. */
#ifndef EDGEQ_ARITHMETIC_H
#define EDGEQ_ARITHMETIC_H

#include <stdint.h>

/* round(a * b / 2^31), ties towards +infinity; b is a multiplier in [0, 2^31). */
static inline int32_t edgeq_doubling_high_mul(int32_t a, int32_t b) {
    return (int32_t)(((int64_t)a * b + (INT64_C(1) << 30)) >> 31);
}

/* x / 2^exponent, ties away from zero; exponent in 0..31. */
static inline int32_t edgeq_rounding_shift(int32_t x, int32_t exponent) {
    const int32_t mask = (int32_t)((UINT32_C(1) << exponent) - 1U);
    const int32_t threshold = (mask >> 1) + (x < 0 ? 1 : 0);
    return (x >> exponent) + ((x & mask) > threshold ? 1 : 0);
}

/* x * multiplier * 2^(shift - 31); shift in -31..30. */
static inline int32_t edgeq_requantize(int32_t x, int32_t multiplier, int32_t shift) {
    const int32_t left = shift > 0 ? shift : 0;
    const int32_t right = shift > 0 ? 0 : -shift;
    return edgeq_rounding_shift(edgeq_doubling_high_mul((int32_t)((uint32_t)x << left), multiplier), right);
}

/* The same for the 64-bit accumulators of 16x8 models: a 16-bit multiplier and one rounding. */
static inline int32_t edgeq_requantize_64(int64_t x, int32_t multiplier, int32_t shift) {
    const int32_t reduced = multiplier < 0x7FFF0000 ? (multiplier + (1 << 15)) >> 16 : 0x7FFF;
    const int32_t total = 15 - shift;
    return (int32_t)((x * reduced + (INT64_C(1) << (total - 1))) >> total);
}

/* 1 / (1 + a) for a in [0, 1), both Q0.31: three Newton steps in Q2.29, as gemmlowp computes it. */
static inline int32_t edgeq_one_over_one_plus(int32_t a) {
    const int32_t half = (int32_t)(((int64_t)a + INT32_MAX + 1) / 2);
    int32_t x = 1515870810 + edgeq_doubling_high_mul(half, -1010580540);
    for (int i = 0; i < 3; i++) {
        const int32_t rest = (INT32_C(1) << 29) - edgeq_doubling_high_mul(half, x);
        x += edgeq_doubling_high_mul(x, rest) * 4;
    }
    return x >= (INT32_C(1) << 30) ? INT32_MAX : x * 2;
}

/* Bits above the highest set one; x > 0. */
static inline int32_t edgeq_leading_zeros(uint32_t x) {
    int32_t count = 0;
    while ((x & UINT32_C(0x80000000)) == 0) {
        x <<= 1;
        count++;
    }
    return count;
}

static inline int32_t edgeq_clamp(int32_t x, int32_t low, int32_t high) {
    return x < low ? low : x > high ? high : x;
}

#endif
