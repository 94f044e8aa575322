/* Float32 kernels, and the functions of a real number that they need, without the C library.
 *
 * Every kernel adds in the order in which TFLM's reference kernels add, so that on IEEE 754 hardware, compiled without
 * contraction to fused operations (-std=c99 in GCC, -ffp-contract=off), every core gives the same bytes. */
#ifndef EDGEQ_FLOAT32_H
#define EDGEQ_FLOAT32_H

#include "elementwise.h"
#include "reduction.h"

#include <stdint.h>

typedef union {
    float value;
    uint32_t bits;
} edgeq_float_bits;

static inline float edgeq_clamp_float(float x, float low, float high) {
    const float raised = x < low ? low : x;
    return high < raised ? high : raised;
}

/* 2^n for n in -126..127. */
static inline float edgeq_power_of_two(int32_t n) {
    edgeq_float_bits power;
    power.bits = (uint32_t)(n + 127) << 23;
    return power.value;
}

/* x * 2^n for n in -252..254, rounded once. */
static inline float edgeq_scale_by_two(float x, int32_t n) {
    const int32_t half = n / 2;
    return x * edgeq_power_of_two(half) * edgeq_power_of_two(n - half);
}

/* e^x as 2^n * (1 + result), |x| <= 104: Cody and Waite's reduction by ln 2, then a minimax polynomial, 3e-9. */
static inline float edgeq_exponent_parts(float x, int32_t *n) {
    const float scaled = x * 1.44269504f;
    *n = (int32_t)(scaled < 0.0f ? scaled - 0.5f : scaled + 0.5f);
    const float r = (x - (float)*n * 0.693145752f) - (float)*n * 1.42860682e-6f;
    const float tail = 0.5f + r * (0.16666518f + r * (0.041666206f + r * (0.00836889f + r * 0.0013950492f)));
    return r + r * r * tail;
}

/* e^x within 1 unit in the last place; 0 below -104, infinity above 88.73. */
static inline float edgeq_exp(float x) {
    if (!(x > -104.0f)) {
        return x < 0.0f ? 0.0f : x;
    }
    int32_t n;
    const float rest = edgeq_exponent_parts(x > 89.0f ? 89.0f : x, &n);
    return edgeq_scale_by_two(1.0f + rest, n);
}

/* e^x - 1 within 2 units in the last place, for x <= 88. */
static inline float edgeq_expm1(float x) {
    if (!(x > -18.0f)) {
        return x < 0.0f ? -1.0f : x;
    }
    int32_t n;
    const float rest = edgeq_exponent_parts(x, &n);
    return edgeq_scale_by_two(rest, n) + (edgeq_scale_by_two(1.0f, n) - 1.0f);
}

/* tanh(x) within 3 units in the last place. */
static inline float edgeq_tanh(float x) {
    const float size = x < 0.0f ? -x : x;
    if (size > 10.0f) {
        return x < 0.0f ? -1.0f : 1.0f;
    }
    const float grown = edgeq_expm1(2.0f * size);
    const float result = grown / (grown + 2.0f);
    return x < 0.0f ? -result : result;
}

/* ln(x) within 1 unit in the last place; -infinity for 0, NaN below. */
static inline float edgeq_log(float x) {
    edgeq_float_bits of;
    of.value = x;
    int32_t n = 0;
    if (!(x > 0.0f) || of.bits >= 0x7F800000U) {
        return x == 0.0f ? -1.0f / (x * x) : x < 0.0f ? (x - x) / (x - x) : x;
    }
    if (of.bits < 0x00800000U) {
        of.value = x * 8388608.0f;
        n = -23;
    }
    const uint32_t above = of.bits - 0x3F3504F3U; /* from sqrt(1/2) on */
    n += (int32_t)(above >> 23) - (above >> 31 ? 512 : 0);
    of.bits = (above & 0x007FFFFFU) + 0x3F3504F3U;
    const float f = of.value - 1.0f;
    const float s = f / (2.0f + f);
    const float z = s * s;
    const float tail = z * (0.66666776f + z * (0.3997745f + z * 0.2987442f));
    const float half = 0.5f * f * f;
    return (float)n * 0.693145752f + (f - (half - (s * (half + tail) + (float)n * 1.42860682e-6f)));
}

/* sqrt(x), correctly rounded as IEEE 754 asks: the core's instruction, or digit by digit; NaN below 0. */
static inline float edgeq_sqrt(float x) {
#if defined(__ARM_FP) && defined(__GNUC__)
    float root;
    __asm__("vsqrt.f32 %0, %1" : "=t"(root) : "t"(x));
    return root;
#else
    edgeq_float_bits of;
    of.value = x;
    if (!(x > 0.0f) || of.bits >= 0x7F800000U) {
        return x < 0.0f ? (x - x) / (x - x) : x;
    }
    int32_t exponent = (int32_t)(of.bits >> 23);
    uint32_t rest = of.bits & 0x007FFFFFU;
    if (exponent == 0) {
        exponent = 1;
        while (rest < 0x00800000U) {
            rest <<= 1;
            exponent--;
        }
    }
    rest |= 0x00800000U;
    exponent -= 127;
    if (exponent & 1) {
        rest <<= 1;
        exponent--;
    }
    uint32_t root = 0;
    uint32_t twice = 0;
    rest <<= 1;
    for (uint32_t digit = 0x01000000U; digit != 0; digit >>= 1) {
        if (twice + digit <= rest) {
            twice += 2 * digit;
            rest -= twice - digit;
            root += digit;
        }
        rest <<= 1;
    }
    root += rest != 0 ? root & 1U : 0U;
    of.bits = (root >> 1) + ((uint32_t)(exponent / 2 + 126) << 23);
    return of.value;
#endif
}

/* count elements each; all may work in place. */
void edgeq_abs_f32(const float *input, float *output, int32_t count);
void edgeq_neg_f32(const float *input, float *output, int32_t count);
void edgeq_square_f32(const float *input, float *output, int32_t count);
void edgeq_sqrt_f32(const float *input, float *output, int32_t count);
void edgeq_rsqrt_f32(const float *input, float *output, int32_t count);
void edgeq_exp_f32(const float *input, float *output, int32_t count);
void edgeq_log_f32(const float *input, float *output, int32_t count);
void edgeq_logistic_f32(const float *input, float *output, int32_t count);
void edgeq_tanh_f32(const float *input, float *output, int32_t count);
void edgeq_elu_f32(const float *input, float *output, int32_t count);
void edgeq_hard_swish_f32(const float *input, float *output, int32_t count);
void edgeq_gelu_tanh_f32(const float *input, float *output, int32_t count);
void edgeq_clamp_f32(const float *input, float *output, int32_t count, float low, float high);
void edgeq_leaky_relu_f32(const float *input, float *output, int32_t count, float alpha);

/* Loops as in elementwise.h. */
typedef struct {
    EDGEQ_BROADCAST;
    float act_min, act_max;
} edgeq_broadcast_f32;

void edgeq_add_f32(const edgeq_broadcast_f32 *p, const float *a, const float *b, float *output);
void edgeq_sub_f32(const edgeq_broadcast_f32 *p, const float *a, const float *b, float *output);
void edgeq_mul_f32(const edgeq_broadcast_f32 *p, const float *a, const float *b, float *output);
void edgeq_div_f32(const edgeq_broadcast_f32 *p, const float *a, const float *b, float *output);
void edgeq_squared_difference_f32(const edgeq_broadcast_f32 *p, const float *a, const float *b, float *output);
void edgeq_maximum_f32(const edgeq_broadcast_f32 *p, const float *a, const float *b, float *output);
void edgeq_minimum_f32(const edgeq_broadcast_f32 *p, const float *a, const float *b, float *output);
/* a where it is not negative, else a * b. */
void edgeq_prelu_f32(const edgeq_broadcast_f32 *p, const float *a, const float *b, float *output);

/* NHWC; names as in convolution.h. Padding adds nothing. */
typedef struct {
    int32_t batches, in_h, in_w, in_c, out_h, out_w, out_c;
    int32_t filter_h, filter_w, filter_c;
    int32_t stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
    int32_t multiplier;
    float act_min, act_max;
} edgeq_conv_f32_params;

/* weights [out_c][filter_h][filter_w][filter_c]; bias [out_c] is added last. Outputs in ascending order. */
void edgeq_conv_2d_f32(const edgeq_conv_f32_params *p, const float *input, const float *weights, const float *bias,
                       float *output);
/* weights [filter_h][filter_w][out_c]; output channel c reads input channel c / multiplier. */
void edgeq_depthwise_conv_2d_f32(const edgeq_conv_f32_params *p, const float *input, const float *weights,
                                 const float *bias, float *output);
/* weights [out_c][filter_h][filter_w][in_c]; the pads are those that the output loses. */
void edgeq_transpose_conv_f32(const edgeq_conv_f32_params *p, const float *input, const float *weights,
                              const float *bias, float *output);

/* Padding is left out of the mean and the maximum. Outputs in ascending order. */
typedef struct {
    int32_t batches, in_h, in_w, in_c, out_h, out_w;
    int32_t filter_h, filter_w, stride_h, stride_w, pad_top, pad_left;
    float act_min, act_max;
} edgeq_pool_f32_params;

void edgeq_average_pool_2d_f32(const edgeq_pool_f32_params *p, const float *input, float *output);
void edgeq_max_pool_2d_f32(const edgeq_pool_f32_params *p, const float *input, float *output);

typedef struct {
    int32_t batches, depth, units;
    float act_min, act_max;
} edgeq_fully_connected_f32_params;

/* weights [units][depth], bias [units]. */
void edgeq_fully_connected_f32(const edgeq_fully_connected_f32_params *p, const float *input, const float *weights,
                               const float *bias, float *output);

/* As edgeq_batch_matmul_params in matrix.h. */
typedef struct {
    EDGEQ_BROADCAST;
    int32_t m, n, k, a_row, a_step, b_column, b_step;
} edgeq_batch_matmul_f32_params;

void edgeq_batch_matmul_f32(const edgeq_batch_matmul_f32_params *p, const float *a, const float *b, float *output);

/* Loops as in reduction.h; the sum is divided by `divisor` (1: SUM). */
typedef struct {
    EDGEQ_REDUCTION;
    float divisor;
} edgeq_reduce_f32_params;

void edgeq_sum_f32(const edgeq_reduce_f32_params *p, const float *input, float *output);
void edgeq_reduce_max_f32(const edgeq_reduce_params *p, const float *input, float *output);
void edgeq_reduce_min_f32(const edgeq_reduce_params *p, const float *input, float *output);

/* Rows of `depth` elements; beta multiplies the exponent of SOFTMAX. May work in place. */
void edgeq_softmax_f32(const float *input, float *output, int32_t rows, int32_t depth, float beta);
void edgeq_log_softmax_f32(const float *input, float *output, int32_t rows, int32_t depth);
/* Each row divided by its Euclidean length, at least 1e-6. May work in place. */
void edgeq_l2_normalization_f32(const float *input, float *output, int32_t rows, int32_t depth);

typedef struct {
    int32_t batches, in_h, in_w, channels, out_h, out_w;
} edgeq_resize_f32_params;

/* places: for each output row (column) the lower and the upper source row; parts: the upper one's share. */
void edgeq_resize_bilinear_f32(const edgeq_resize_f32_params *p, const float *input, const int32_t *row_places,
                               const float *row_parts, const int32_t *column_places, const float *column_parts,
                               float *output);

#endif
