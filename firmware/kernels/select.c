#include "edgeq/choice.h"

#include <string.h>

void edgeq_select(const edgeq_select_params *p, const uint8_t *condition, const uint8_t *a, const uint8_t *b,
                  uint8_t *output) {
    int32_t index[5] = {0, 0, 0, 0, 0};
    int32_t at_condition = 0;
    int32_t at_a = 0;
    int32_t at_b = 0;
    int d;
    do {
        const uint8_t *from = condition[at_condition] != 0 ? a + at_a * p->element_bytes : b + at_b * p->element_bytes;
        memcpy(output, from, (uint32_t)p->element_bytes);
        output += p->element_bytes;
        for (d = 4; d >= 0; d--) {
            at_condition += p->condition_stride[d];
            at_a += p->a_stride[d];
            at_b += p->b_stride[d];
            if (++index[d] < p->size[d]) {
                break;
            }
            at_condition -= p->condition_stride[d] * p->size[d];
            at_a -= p->a_stride[d] * p->size[d];
            at_b -= p->b_stride[d] * p->size[d];
            index[d] = 0;
        }
    } while (d >= 0);
}
