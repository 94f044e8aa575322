#include "edgeq/choice.h"

void edgeq_cast_u8_s32(const uint8_t *input, int32_t *output, int32_t count) {
    for (int32_t i = 0; i < count; i++) {
        output[i] = input[i];
    }
}
