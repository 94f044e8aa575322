#include "edgeq/conversion.h"

void edgeq_dequantize_u8_f32(const edgeq_dequantize_params *p, const uint8_t *input, float *output) {
    for (int32_t i = 0; i < p->count; i++) {
        output[i] = p->scale * (float)(input[i] - p->zero_point);
    }
}
