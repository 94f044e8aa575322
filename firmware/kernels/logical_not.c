#include "edgeq/choice.h"

void edgeq_logical_not(const uint8_t *input, uint8_t *output, int32_t count) {
    for (int32_t i = 0; i < count; i++) {
        output[i] = input[i] == 0;
    }
}
