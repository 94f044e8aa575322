#include "edgeq/indexing.h"

#include <string.h>

void edgeq_one_hot(const edgeq_one_hot_params *p, const int32_t *indices, const uint8_t *on, const uint8_t *off,
                   uint8_t *output) {
    for (int32_t o = 0; o < p->outer; o++, indices += p->inner) {
        for (int32_t d = 0; d < p->depth; d++) {
            for (int32_t i = 0; i < p->inner; i++) {
                memcpy(output, indices[i] == d ? on : off, (uint32_t)p->element_bytes);
                output += p->element_bytes;
            }
        }
    }
}
