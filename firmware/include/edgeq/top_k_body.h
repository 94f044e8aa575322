/* The kernel TOPK_V2 for the element type of int8.h or int16.h. */
#include "indexing.h"

void KERNEL(const edgeq_top_k_params *p, const edgeq_element *input, edgeq_element *values, int32_t *positions) {
    for (int32_t row = 0; row < p->rows; row++, input += p->depth, values += p->k, positions += p->k) {
        for (int32_t i = 0; i < p->depth; i++) {
            int32_t place = i < p->k ? i : p->k;
            while (place > 0 && values[place - 1] < input[i]) {
                place--;
            }
            if (place == p->k) {
                continue;
            }
            for (int32_t last = i < p->k ? i : p->k - 1; last > place; last--) {
                values[last] = values[last - 1];
                positions[last] = positions[last - 1];
            }
            values[place] = input[i];
            positions[place] = i;
        }
    }
}
