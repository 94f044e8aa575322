#include "edgeq/conversion.h"

void edgeq_quantize_f32_s8(const edgeq_quantize_params *p, const float *input, int8_t *output) {
    for (int32_t i = 0; i < p->count; i++) {
        output[i] = (int8_t)edgeq_quantize(p, input[i]);
    }
}
