#include "edgeq/float32.h"

void edgeq_l2_normalization_f32(const float *input, float *output, int32_t rows, int32_t depth) {
    for (int32_t row = 0; row < rows; row++, input += depth, output += depth) {
        float sum = 0.0f;
        for (int32_t i = 0; i < depth; i++) {
            sum += input[i] * input[i];
        }
        const float root = edgeq_sqrt(sum);
        const float length = root < 1.0e-6f ? 1.0e-6f : root;
        for (int32_t i = 0; i < depth; i++) {
            output[i] = input[i] / length;
        }
    }
}
