/* Conversions between number types, element by element; may work in place where the output is not larger. */
#ifndef EDGEQ_CONVERSION_H
#define EDGEQ_CONVERSION_H

#include <stdint.h>

/* q = round(x / scale) + zero_point, ties away from zero, clamped to low..high; NaN gives zero_point. */
typedef struct {
    int32_t count;
    float scale;
    int32_t zero_point, low, high;
} edgeq_quantize_params;

static inline int32_t edgeq_quantize(const edgeq_quantize_params *p, float x) {
    const float scaled = x / p->scale;
    const float limit = 1.0e6f;
    const float near = scaled > limit ? limit : scaled < -limit ? -limit : scaled == scaled ? scaled : 0.0f;
    int32_t whole = (int32_t)near;
    const float rest = near - (float)whole;
    whole += rest >= 0.5f ? 1 : rest <= -0.5f ? -1 : 0;
    const int32_t value = whole + p->zero_point;
    return value < p->low ? p->low : value > p->high ? p->high : value;
}

void edgeq_quantize_f32_s8(const edgeq_quantize_params *p, const float *input, int8_t *output);
void edgeq_quantize_f32_u8(const edgeq_quantize_params *p, const float *input, uint8_t *output);
void edgeq_quantize_f32_s16(const edgeq_quantize_params *p, const float *input, int16_t *output);

/* x = scale * (q - zero_point). */
typedef struct {
    int32_t count;
    float scale;
    int32_t zero_point;
} edgeq_dequantize_params;

void edgeq_dequantize_s8_f32(const edgeq_dequantize_params *p, const int8_t *input, float *output);
void edgeq_dequantize_u8_f32(const edgeq_dequantize_params *p, const uint8_t *input, float *output);
void edgeq_dequantize_s16_f32(const edgeq_dequantize_params *p, const int16_t *input, float *output);

typedef struct {
    int32_t count, input_offset, multiplier, shift, output_offset, low, high;
} edgeq_requantize_params;

void edgeq_requantize_s8_s16(const edgeq_requantize_params *p, const int8_t *input, int16_t *output);
void edgeq_requantize_s16_s8(const edgeq_requantize_params *p, const int16_t *input, int8_t *output);
void edgeq_requantize_s16_s16(const edgeq_requantize_params *p, const int16_t *input, int16_t *output);

#endif
