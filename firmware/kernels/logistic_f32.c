#include "edgeq/float32.h"

void edgeq_logistic_f32(const float *input, float *output, int32_t count) {
    for (int32_t i = 0; i < count; i++) {
        const float x = input[i];
        const float power = edgeq_exp(x < 0.0f ? x : -x);
        output[i] = (x < 0.0f ? power : 1.0f) / (1.0f + power);
    }
}
