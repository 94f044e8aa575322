#include "edgeq/float32.h"

void edgeq_leaky_relu_f32(const float *input, float *output, int32_t count, float alpha) {
    for (int32_t i = 0; i < count; i++) {
        const float x = input[i];
        output[i] = x > 0.0f ? x : x * alpha;
    }
}
