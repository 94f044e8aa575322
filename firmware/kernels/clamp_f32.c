#include "edgeq/float32.h"

void edgeq_clamp_f32(const float *input, float *output, int32_t count, float low, float high) {
    for (int32_t i = 0; i < count; i++) {
        const float x = input[i];
        output[i] = edgeq_clamp_float(x, low, high);
    }
}
