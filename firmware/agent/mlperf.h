/* What mlperf.c must know of the model besides edgeq_model; generated from the bundle's manifest. */
#ifndef EDGEQ_AGENT_MLPERF_H
#define EDGEQ_AGENT_MLPERF_H

#include "agent.h"
#include "kept.h"

/* How the runner's bytes become the model's int8 input. */
enum {
    EDGEQ_MLPERF_SIGNED,   /* as they are (kws01) */
    EDGEQ_MLPERF_UNSIGNED, /* pixels, 128 less (ic01, vww01) */
    EDGEQ_MLPERF_FLOAT     /* little-endian floats, quantized (ad01, which answers the squared error) */
};

typedef struct {
    uint8_t input;
    float input_scale, output_scale;
    int32_t input_zero_point, output_zero_point;
    uint8_t *buffer; /* what `db` loads */
    uint32_t buffer_bytes;
} edgeq_mlperf_t;

extern const edgeq_mlperf_t edgeq_mlperf;

#endif
