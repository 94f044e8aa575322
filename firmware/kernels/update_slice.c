#include "edgeq/indexing.h"

#include <string.h>

void edgeq_update_slice(const edgeq_update_slice_params *p, const uint8_t *input, const uint8_t *update,
                        const int32_t *start, uint8_t *output) {
    if (output != input) {
        memcpy(output, input, (uint32_t)p->total_bytes);
    }
    uint8_t *to = output;
    int32_t index[6] = {0, 0, 0, 0, 0, 0};
    for (int32_t d = 0; d < p->rank; d++) {
        to += (start[d] < 0 ? 0 : start[d] > p->last[d] ? p->last[d] : start[d]) * p->stride[d];
    }
    const int32_t run_bytes = p->size[p->rank - 1] * p->element_bytes;
    for (int32_t d = 0; d >= 0;) {
        memcpy(to, update, (uint32_t)run_bytes);
        update += run_bytes;
        for (d = p->rank - 2; d >= 0; d--) {
            to += p->stride[d];
            if (++index[d] < p->size[d]) {
                break;
            }
            to -= p->stride[d] * p->size[d];
            index[d] = 0;
        }
    }
}
