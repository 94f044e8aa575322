#include "edgeq/float32.h"

void edgeq_softmax_f32(const float *input, float *output, int32_t rows, int32_t depth, float beta) {
    for (int32_t row = 0; row < rows; row++, input += depth, output += depth) {
        float largest = input[0];
        for (int32_t i = 1; i < depth; i++) {
            largest = input[i] > largest ? input[i] : largest;
        }
        float sum = 0.0f;
        for (int32_t i = 0; i < depth; i++) {
            output[i] = edgeq_exp((input[i] - largest) * beta);
            sum += output[i];
        }
        for (int32_t i = 0; i < depth; i++) {
            output[i] /= sum;
        }
    }
}
