#include "edgeq/choice.h"

void edgeq_cast_u8_s8(const uint8_t *input, int8_t *output, int32_t count) {
    for (int32_t i = 0; i < count; i++) {
        output[i] = (int8_t)input[i];
    }
}
