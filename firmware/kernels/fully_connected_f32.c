#include "edgeq/float32.h"

void edgeq_fully_connected_f32(const edgeq_fully_connected_f32_params *p, const float *input, const float *weights,
                               const float *bias, float *output) {
    for (int32_t b = 0; b < p->batches; b++, input += p->depth) {
        for (int32_t unit = 0; unit < p->units; unit++) {
            const float *row = weights + unit * p->depth;
            float sum = 0.0f;
            for (int32_t i = 0; i < p->depth; i++) {
                sum += input[i] * row[i];
            }
            *output++ = edgeq_clamp_float(sum + bias[unit], p->act_min, p->act_max);
        }
    }
}
