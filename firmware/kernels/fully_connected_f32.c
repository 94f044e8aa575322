#include "edgeq/float32.h"

/* Four (or fewer) units at once; each unit's products are added in ascending order. */
void edgeq_fully_connected_f32(const edgeq_fully_connected_f32_params *p, const float *input, const float *weights,
                               const float *bias, float *output) {
    for (int32_t b = 0; b < p->batches; b++, input += p->depth) {
        for (int32_t unit = 0; unit < p->units;) {
            const int32_t rest = p->units - unit;
            const int32_t count = rest < 4 ? rest : 4;
            const float *row0 = weights + unit * p->depth;
            const float *row1 = row0 + (count > 1 ? p->depth : 0);
            const float *row2 = row0 + (count > 2 ? 2 * p->depth : 0);
            const float *row3 = row0 + (count > 3 ? 3 * p->depth : 0);
            float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
            for (int32_t i = 0; i < p->depth; i++) {
                const float element = input[i];
                sums[0] += element * row0[i];
                sums[1] += element * row1[i];
                sums[2] += element * row2[i];
                sums[3] += element * row3[i];
            }
            for (int32_t i = 0; i < count; i++, unit++) {
                *output++ = edgeq_clamp_float(sums[i] + bias[unit], p->act_min, p->act_max);
            }
        }
    }
}
