#include "edgeq/choice.h"

void edgeq_resize_bilinear_s16(const edgeq_resize_s16_params *p, const int16_t *input, const int32_t *rows,
                               const int32_t *columns, int16_t *output) {
    const int64_t units = (int64_t)p->row_units * p->column_units;
    for (int32_t b = 0; b < p->batches; b++, input += p->in_h * p->in_w * p->channels) {
        for (int32_t y = 0; y < p->out_h; y++) {
            const int16_t *upper = input + rows[3 * y] * p->in_w * p->channels;
            const int16_t *lower = input + rows[3 * y + 1] * p->in_w * p->channels;
            const int32_t down = rows[3 * y + 2];
            for (int32_t x = 0; x < p->out_w; x++) {
                const int32_t left = columns[3 * x] * p->channels;
                const int32_t right = columns[3 * x + 1] * p->channels;
                const int32_t across = columns[3 * x + 2];
                const int32_t rest = p->column_units - across;
                for (int32_t c = 0; c < p->channels; c++) {
                    const int64_t top = (int64_t)upper[left + c] * rest + (int64_t)upper[right + c] * across;
                    const int64_t base = (int64_t)lower[left + c] * rest + (int64_t)lower[right + c] * across;
                    const int64_t sum = top * (p->row_units - down) + base * down;
                    *output++ = (int16_t)((sum + (sum < 0 ? -(units / 2) : units / 2)) / units);
                }
            }
        }
    }
}
