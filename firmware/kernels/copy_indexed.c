#include "edgeq/movement.h"

#include <string.h>

void edgeq_copy_indexed(const edgeq_copy_indexed_params *p, const uint8_t *input, const int32_t *offsets,
                        uint8_t *output) {
    const int32_t *at[5];
    for (int d = 0; d < 5; d++) {
        at[d] = offsets;
        offsets += p->size[d];
    }
    for (int32_t i = 0; i < p->size[0]; i++) {
        for (int32_t j = 0; j < p->size[1]; j++) {
            for (int32_t k = 0; k < p->size[2]; k++) {
                for (int32_t l = 0; l < p->size[3]; l++) {
                    const uint8_t *from = input + at[0][i] + at[1][j] + at[2][k] + at[3][l];
                    for (int32_t m = 0; m < p->size[4]; m++) {
                        memcpy(output, from + at[4][m], (uint32_t)p->run_bytes);
                        output += p->run_bytes;
                    }
                }
            }
        }
    }
}
