#include "edgeq/softmax.h"

/* Table of 513 samples over the int16 range, interpolated. */
static int32_t interpolate(const int16_t *table, int32_t x) {
    const int32_t at = 256 + (x >> 7);
    return table[at] + (((table[at + 1] - table[at]) * (x & 0x7F) + 64) >> 7);
}

void edgeq_softmax_s16(const edgeq_softmax_s16_params *p, const int16_t *input, const int16_t *exponentials,
                       const int16_t *reciprocals, int16_t *output) {
    for (int32_t row = 0; row < p->rows; row++, input += p->depth, output += p->depth) {
        int32_t largest = INT16_MIN;
        for (int32_t i = 0; i < p->depth; i++) {
            largest = input[i] > largest ? input[i] : largest;
        }
        int32_t sum = 0; /* Q16.15 */
        for (int32_t i = 0; i < p->depth; i++) {
            const int32_t distance = edgeq_requantize(input[i] - largest, p->multiplier, p->shift);
            output[i] = (int16_t)interpolate(exponentials, edgeq_clamp(distance, INT16_MIN - INT16_MAX, 0) + INT16_MAX);
            sum += output[i];
        }
        const int32_t headroom = edgeq_leading_zeros((uint32_t)sum);
        const int32_t scaled = (int32_t)((((int64_t)sum << (headroom - 1)) + (1 << 13)) >> 14);
        const int32_t reciprocal =
            interpolate(reciprocals, edgeq_clamp(scaled - (1 << 15) - (1 << 16), INT16_MIN, INT16_MAX));
        const int32_t shift = 31 - headroom;
        for (int32_t i = 0; i < p->depth; i++) {
            const int64_t value = ((int64_t)output[i] * reciprocal + (INT64_C(1) << (shift - 1))) >> shift;
            output[i] = (int16_t)edgeq_clamp((int32_t)value, 0, INT16_MAX);
        }
    }
}
