/*
 * The device agent: answers the host's commands about one model (PROTOCOL.md).
 *
 * One source for all boards. A port (firmware/ports/) supplies what is declared under "port" and calls
 * edgeq_agent_start() once, then edgeq_agent_poll() for ever. The model comes from a generated file that defines
 * edgeq_model. No heap, no stdio; of the C library only memcpy and memset.
 */
#ifndef EDGEQ_AGENT_H
#define EDGEQ_AGENT_H

#include <stdbool.h>
#include <stdint.h>

#include "wire.h"

#define EDGEQ_FIRMWARE_VERSION_MAJOR 0
#define EDGEQ_FIRMWARE_VERSION_MINOR 1
#define EDGEQ_FIRMWARE_VERSION_PATCH 0

#ifndef EDGEQ_MAX_PAYLOAD_BYTES
#define EDGEQ_MAX_PAYLOAD_BYTES 1024u
#endif
#define EDGEQ_MAX_RUNS 32u

/* ---- model: generated from the bundle's manifest ---- */

/* A piece of the arena: the whole, or what of it lies in one region of RAM. */
typedef struct {
    uint8_t *start;
    uint32_t bytes;
} edgeq_piece_t;

typedef struct {
    const char *name;
    const char *board;
    uint8_t sha256[32];
    void *arena;                 /* what the functions below are given */
    const edgeq_piece_t *pieces; /* where the arena lies: offsets count through them */
    uint16_t piece_count;
    uint32_t arena_bytes; /* of all pieces */
    uint16_t inputs, outputs, layers;
    const uint32_t *input_bytes;
    const uint32_t *output_bytes;
    uint64_t *layer_ticks; /* `layers` of them */
    void *(*input)(void *arena, int index);
    const void *(*output)(const void *arena, int index);
    int32_t (*invoke)(void *arena);
    void (*reset)(void *arena);
} edgeq_model_t;

extern const edgeq_model_t edgeq_model;

/* The bundle is compiled with -DEDGEQ_PROFILE_HOOK=edgeq_agent_layer and calls this after each layer. */
void edgeq_agent_layer(int32_t layer);

/* ---- port ---- */

#define EDGEQ_UNKNOWN 0xFFFFFFFFu

enum { EDGEQ_TIMER_NONE, EDGEQ_TIMER_INSTRUCTIONS, EDGEQ_TIMER_CYCLES, EDGEQ_TIMER_US, EDGEQ_TIMER_NS };

/* HELLO's capability bits */
#define EDGEQ_CAN_KEEP_INPUTS      0x01u
#define EDGEQ_CAN_PROFILE          0x02u
#define EDGEQ_CAN_RECORD_FAULTS    0x04u
#define EDGEQ_CAN_RESET_BOARD      0x08u
#define EDGEQ_CAN_MEASURE_STACK    0x10u
#define EDGEQ_INSTRUCTION_CACHE_ON 0x20u
#define EDGEQ_DATA_CACHE_ON        0x40u
#define EDGEQ_CAN_I2C              0x80u

typedef struct {
    uint8_t timer_kind;
    uint16_t timer_resolution;
    uint32_t timer_hz;       /* 0 where ticks are instructions */
    uint32_t core_hz;        /* 0 where it means nothing */
    uint32_t progress_ticks; /* about a quarter of a second; 0: no progress frames */
    uint32_t capabilities;   /* RESET_BOARD, RECORD_FAULTS, I2C and the caches; the agent knows the others */
    uint8_t *spare;          /* RAM that nothing else uses, for kept inputs and captures */
    uint32_t spare_bytes;
    uint32_t *stack_limit; /* lowest word of the stack, 0 if unknown */
    uint32_t *stack_top;   /* behind the highest */
    uint32_t data_bytes, bss_bytes;
} edgeq_port_info_t;

void edgeq_port_info(edgeq_port_info_t *info);
int32_t edgeq_port_read(void); /* the next byte, or -1: nothing there */
void edgeq_port_write(const uint8_t *bytes, uint32_t length);
void edgeq_port_timer_start(void); /* ticks count from here on */
void edgeq_port_timer_stop(void);
uint64_t edgeq_port_ticks(void); /* read at least once in 2^31 ticks while the timer is on */
void edgeq_port_reset(void);     /* sends what is under way, then restarts; does not return */

/* Optional: what must not wait for the end of a RUN, as a USB host's control transfers. Called between its
 * layers (for MLPerf Tiny: its inferences). */
void edgeq_port_serve(void);

enum { EDGEQ_I2C_OK, EDGEQ_I2C_NO_ANSWER, EDGEQ_I2C_STUCK };

/* Optional, with EDGEQ_CAN_I2C: as master, send `out` if there is some, then receive `in` after a repeated start. */
uint32_t edgeq_port_i2c(uint8_t address, const uint8_t *out, uint32_t out_bytes, uint8_t *in, uint32_t in_bytes);

/* ---- what outlives a restart ---- */

enum { EDGEQ_RESET_POWER, EDGEQ_RESET_ASKED, EDGEQ_RESET_FAULT };
enum {
    EDGEQ_FAULT_NONE,
    EDGEQ_FAULT_HARD,
    EDGEQ_FAULT_MEMORY,
    EDGEQ_FAULT_BUS,
    EDGEQ_FAULT_USAGE,
    EDGEQ_FAULT_SECURE,
    EDGEQ_FAULT_TRAP,
    EDGEQ_FAULT_SIGNAL
};

/* FAULT's reply, in its order. */
typedef struct {
    uint32_t kind, pc, lr, sp, psr, r0, r1, r2, r3, r12, cfsr, hfsr, mmfar, bfar;
    uint32_t command, layer, boot_count, faults, reserved[6];
} edgeq_fault_t;

/* In RAM that start-up leaves alone; valid if `crc` is right. */
typedef struct {
    uint32_t boot_count;
    uint32_t reset_reason;
    edgeq_fault_t fault;
    uint32_t crc;
} edgeq_kept_t;

extern edgeq_kept_t edgeq_kept; /* defined by the port */

/* For a port's fault handler: `fault` has the registers filled in. Stores the record; the handler restarts then. */
void edgeq_agent_fault(const edgeq_fault_t *fault);

/* ---- agent ---- */

typedef struct {
    const edgeq_model_t *model;
    edgeq_port_info_t port;
    edgeq_decoder_t decoder;
    edgeq_encoder_t encoder;
    uint8_t frame[EDGEQ_HEADER_BYTES + EDGEQ_MAX_PAYLOAD_BYTES + EDGEQ_CRC_BYTES];

    /* the request that is being answered */
    uint8_t command;
    uint16_t sequence;
    uint32_t session;

    uint32_t reset_reason;
    uint32_t open_session; /* 0: none */
    uint16_t last_sequence;
    uint8_t last_command;

    uint32_t input_total_bytes;
    uint8_t *kept_inputs; /* 0: WRITE goes to the arena */
    uint8_t *capture;
    uint32_t capture_capacity_bytes;

    struct {
        /* the reply, remembered */
        uint8_t status;
        uint16_t done, flags;
        int32_t model_status;
        uint32_t value; /* of a refusal */
        uint64_t ticks[EDGEQ_MAX_RUNS];
        uint8_t sample[2];
        /* while it lasts */
        bool active;
        uint16_t capture_layer;
        uint32_t capture_offset, capture_bytes;
        uint32_t layer;         /* layers done */
        uint64_t mark;          /* where the present layer began */
        uint64_t hook_ticks;    /* the agent's own, to be taken out of the run's */
        uint64_t progress_mark; /* when the host last heard of us */
    } run;
    bool profiled; /* layer_ticks are of a run since the last RESET */
    uint32_t stack_used_bytes, run_stack_bytes;
} edgeq_agent_t;

void edgeq_agent_start(edgeq_agent_t *agent, const edgeq_model_t *model);
void edgeq_agent_poll(edgeq_agent_t *agent); /* takes what has arrived, answers at most one request */

#endif
