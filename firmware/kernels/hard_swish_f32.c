#include "edgeq/float32.h"

void edgeq_hard_swish_f32(const float *input, float *output, int32_t count) {
    for (int32_t i = 0; i < count; i++) {
        const float x = input[i];
        output[i] = x * edgeq_clamp_float(x + 3.0f, 0.0f, 6.0f) / 6.0f;
    }
}
