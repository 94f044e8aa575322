#include "edgeq/float32.h"

void edgeq_abs_f32(const float *input, float *output, int32_t count) {
    for (int32_t i = 0; i < count; i++) {
        const float x = input[i];
        output[i] = x < 0.0f ? -x : x;
    }
}
