#include "edgeq/float32.h"

void edgeq_arg_extremum_f32(const float *input, int32_t *output, int32_t outer, int32_t axis, int32_t inner,
                            float sign) {
    for (int32_t o = 0; o < outer; o++, input += axis * inner) {
        for (int32_t i = 0; i < inner; i++) {
            int32_t best = 0;
            for (int32_t k = 1; k < axis; k++) {
                if (sign * input[k * inner + i] > sign * input[best * inner + i]) {
                    best = k;
                }
            }
            *output++ = best;
        }
    }
}
