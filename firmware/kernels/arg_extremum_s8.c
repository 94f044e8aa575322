#include "edgeq/choice.h"

void edgeq_arg_extremum_s8(const edgeq_arg_params *p, const int8_t *input, int32_t *output) {
    for (int32_t o = 0; o < p->outer; o++, input += p->axis * p->inner) {
        for (int32_t i = 0; i < p->inner; i++) {
            int32_t best = 0;
            for (int32_t k = 1; k < p->axis; k++) {
                if (p->sign * input[k * p->inner + i] > p->sign * input[best * p->inner + i]) {
                    best = k;
                }
            }
            *output++ = best;
        }
    }
}
