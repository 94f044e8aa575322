#include "edgeq/choice.h"

void edgeq_cast_s32_f32(const int32_t *input, float *output, int32_t count) {
    for (int32_t i = 0; i < count; i++) {
        output[i] = (float)input[i];
    }
}
