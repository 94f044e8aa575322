#include "edgeq/indexing.h"

void edgeq_top_k_s8(const edgeq_top_k_params *p, const int8_t *input, int8_t *values, int32_t *positions) {
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
