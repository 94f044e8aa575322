#include "edgeq/choice.h"

void edgeq_cast_f32_s8(const float *input, int8_t *output, int32_t count) {
    for (int32_t i = 0; i < count; i++) {
        const float x = input[i];
        output[i] = (int8_t)(x >= 127.0f ? 127 : x > -128.0f ? (int32_t)x : -128);
    }
}
