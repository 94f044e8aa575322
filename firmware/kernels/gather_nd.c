#include "edgeq/indexing.h"

#include <string.h>

void edgeq_gather_nd(const edgeq_gather_nd_params *p, const uint8_t *input, const int32_t *indices, uint8_t *output) {
    for (int32_t i = 0; i < p->count; i++, output += p->run_bytes) {
        const uint8_t *from = input;
        for (int32_t d = 0; d < p->rank; d++) {
            const int32_t wanted = *indices++;
            from += (wanted < 0 ? 0 : wanted >= p->size[d] ? p->size[d] - 1 : wanted) * p->stride[d];
        }
        memcpy(output, from, (uint32_t)p->run_bytes);
    }
}
