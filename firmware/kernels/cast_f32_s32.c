#include "edgeq/choice.h"

void edgeq_cast_f32_s32(const float *input, int32_t *output, int32_t count) {
    for (int32_t i = 0; i < count; i++) {
        const float x = input[i];
        output[i] = x >= 2147483648.0f ? INT32_MAX : x > -2147483648.0f ? (int32_t)x : INT32_MIN;
    }
}
