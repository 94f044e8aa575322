#include "edgeq/movement.h"

#include <string.h>

void edgeq_gather(const edgeq_gather_params *p, const uint8_t *input, const int32_t *indices, uint8_t *output) {
    for (int32_t block = 0; block < p->outer; block++, input += p->axis * p->run_bytes) {
        const int32_t *const own = indices + block / p->shared * p->count;
        for (int32_t i = 0; i < p->count; i++) {
            const int32_t wanted = own[i];
            const int32_t index = wanted < 0 ? 0 : wanted >= p->axis ? p->axis - 1 : wanted;
            memcpy(output, input + index * p->run_bytes, (uint32_t)p->run_bytes);
            output += p->run_bytes;
        }
    }
}
