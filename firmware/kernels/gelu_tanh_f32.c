#include "edgeq/float32.h"

void edgeq_gelu_tanh_f32(const float *input, float *output, int32_t count) {
    for (int32_t i = 0; i < count; i++) {
        const float x = input[i];
        const float inner = 0.797884561f * (x + 0.044715f * x * x * x);
        output[i] = 0.5f * x * (1.0f + edgeq_tanh(inner));
    }
}
