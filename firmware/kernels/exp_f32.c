#include "edgeq/float32.h"

void edgeq_exp_f32(const float *input, float *output, int32_t count) {
    for (int32_t i = 0; i < count; i++) {
        const float x = input[i];
        output[i] = edgeq_exp(x);
    }
}
