#include "edgeq/arithmetic.h"
#include "edgeq/reduction.h"

/* Every limit is at most this / 255, or no product comes near it: what stands still here counts as the largest. */
static const int64_t most = INT64_C(1) << 62;

/* How many of the ascending limits a magnitude reaches: its multiple of the output scale, rounded. */
static int32_t steps(const int64_t *limits, int32_t count, int64_t magnitude) {
    int32_t low = 0;
    while (low < count) {
        const int32_t middle = (low + count) / 2;
        if (limits[middle] <= magnitude) {
            low = middle + 1;
        } else {
            count = middle;
        }
    }
    return low;
}

void edgeq_reduce_prod_s8(const edgeq_reduce_prod_params *p, const int8_t *input, const int64_t *limits,
                          int8_t *output) {
    int32_t kept[4] = {0, 0, 0, 0};
    int32_t reduced[4] = {0, 0, 0, 0};
    int32_t base = 0;
    do {
        int64_t magnitude = 1;
        int32_t sign = 1;
        int32_t at = base;
        do {
            const int32_t value = input[at] + p->input_offset;
            const int32_t size = value < 0 ? -value : value;
            magnitude = magnitude > most / 255 && size > 1 ? most : magnitude * size;
            sign = value < 0 ? -sign : sign;
        } while (edgeq_step(p->reduced_size, p->reduced_stride, reduced, &at));
        const int32_t value = sign * steps(limits, p->limits, magnitude) + p->output_offset;
        *output++ = (int8_t)edgeq_clamp(value, INT8_MIN, INT8_MAX);
    } while (edgeq_step(p->kept_size, p->kept_stride, kept, &base));
}
