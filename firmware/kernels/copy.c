#include "edgeq/movement.h"

#include <string.h>

void edgeq_copy(const edgeq_copy_params *p, const uint8_t *input, uint8_t *output) {
    int32_t index[6] = {0, 0, 0, 0, 0, 0};
    int32_t from = p->input_start;
    int32_t to = p->output_start;
    int d;
    do {
        if (p->run_bytes == 1) {
            output[to] = input[from];
        } else {
            memcpy(output + to, input + from, (uint32_t)p->run_bytes);
        }
        for (d = 5; d >= 0; d--) {
            from += p->input_stride[d];
            to += p->output_stride[d];
            if (++index[d] < p->size[d]) {
                break;
            }
            from -= p->input_stride[d] * p->size[d];
            to -= p->output_stride[d] * p->size[d];
            index[d] = 0;
        }
    } while (d >= 0);
}
