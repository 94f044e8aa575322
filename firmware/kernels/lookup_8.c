#include "edgeq/elementwise.h"

void edgeq_lookup_8(const uint8_t table[256], const uint8_t *input, uint8_t *output, int32_t count) {
    for (int32_t i = 0; i < count; i++) {
        output[i] = table[input[i]];
    }
}
