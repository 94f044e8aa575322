#include "edgeq/elementwise.h"

void edgeq_curve_s16(const edgeq_curve_s16_params *p, const int16_t *input, const int16_t *starts, const int8_t *bits,
                     const int64_t *coefficients, int16_t *output) {
    for (int32_t i = 0; i < p->count; i++) {
        int32_t piece = 0;
        int32_t end = p->pieces;
        while (end - piece > 1) {
            const int32_t middle = (piece + end) / 2;
            if (starts[middle] <= input[i]) {
                piece = middle;
            } else {
                end = middle;
            }
        }
        const int64_t *c = coefficients + 4 * piece;
        const int32_t t = input[i] - starts[piece];
        int64_t value = c[3];
        for (int32_t k = 2; k >= 0; k--) {
            value = ((value * t) >> bits[piece]) + c[k];
        }
        value = (value + (INT64_C(1) << 27)) >> 28;
        output[i] = (int16_t)(value < INT16_MIN ? INT16_MIN : value > INT16_MAX ? INT16_MAX : value);
    }
}
