#include "edgeq/conversion.h"

void edgeq_quantize_f32_u8(const edgeq_quantize_params *p, const float *input, uint8_t *output) {
    for (int32_t i = 0; i < p->count; i++) {
        output[i] = (uint8_t)edgeq_quantize(p, input[i]);
    }
}
