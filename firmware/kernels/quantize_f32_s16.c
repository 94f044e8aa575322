#include "edgeq/conversion.h"

void edgeq_quantize_f32_s16(const edgeq_quantize_params *p, const float *input, int16_t *output) {
    for (int32_t i = 0; i < p->count; i++) {
        const float scaled = input[i] / p->scale;
        const float limit = 1.0e6f;
        const float near = scaled > limit ? limit : scaled < -limit ? -limit : scaled == scaled ? scaled : 0.0f;
        int32_t whole = (int32_t)near;
        const float rest = near - (float)whole;
        whole += rest >= 0.5f ? 1 : rest <= -0.5f ? -1 : 0;
        const int32_t value = whole + p->zero_point;
        output[i] = (int16_t)(value < p->low ? p->low : value > p->high ? p->high : value);
    }
}
