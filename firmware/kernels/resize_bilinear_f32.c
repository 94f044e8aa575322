#include "edgeq/float32.h"

void edgeq_resize_bilinear_f32(const edgeq_resize_f32_params *p, const float *input, const int32_t *row_places,
                               const float *row_parts, const int32_t *column_places, const float *column_parts,
                               float *output) {
    for (int32_t b = 0; b < p->batches; b++, input += p->in_h * p->in_w * p->channels) {
        for (int32_t y = 0; y < p->out_h; y++) {
            const float *upper = input + row_places[2 * y] * p->in_w * p->channels;
            const float *lower = input + row_places[2 * y + 1] * p->in_w * p->channels;
            const float down = row_parts[y];
            for (int32_t x = 0; x < p->out_w; x++) {
                const int32_t left = column_places[2 * x] * p->channels;
                const int32_t right = column_places[2 * x + 1] * p->channels;
                const float across = column_parts[x];
                for (int32_t c = 0; c < p->channels; c++) {
                    *output++ = upper[left + c] * (1.0f - down) * (1.0f - across) +
                                lower[left + c] * down * (1.0f - across) + upper[right + c] * (1.0f - down) * across +
                                lower[right + c] * down * across;
                }
            }
        }
    }
}
