#include "edgeq/movement.h"

#include <string.h>

void edgeq_fill(const uint8_t *value, int32_t element_bytes, uint8_t *output, int32_t count) {
    for (int32_t i = 0; i < count; i++) {
        memcpy(output + i * element_bytes, value, (uint32_t)element_bytes);
    }
}
