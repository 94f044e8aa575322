/* What the agent's files share: statuses, replies, RUN, paint. */
#ifndef EDGEQ_AGENT_INTERNAL_H
#define EDGEQ_AGENT_INTERNAL_H

#include "agent.h"

enum {
    STATUS_OK,
    STATUS_PROGRESS,
    STATUS_CORRUPT,
    STATUS_VERSION,
    STATUS_UNKNOWN_COMMAND,
    STATUS_BAD_REQUEST,
    STATUS_BAD_INDEX,
    STATUS_BAD_RANGE,
    STATUS_NO_SESSION,
    STATUS_STALE,
    STATUS_TOO_LONG,
    STATUS_MODEL_FAILED,
    STATUS_NO_PROFILE,
    STATUS_INPUT_MISMATCH,
    STATUS_TOO_MANY_RUNS,
    STATUS_NOT_SUPPORTED,
    STATUS_I2C_FAILED
};

enum {
    COMMAND_NONE,
    COMMAND_HELLO,
    COMMAND_WRITE,
    COMMAND_READ,
    COMMAND_RUN,
    COMMAND_LAYERS,
    COMMAND_MEMORY,
    COMMAND_RESET,
    COMMAND_FAULT,
    COMMAND_I2C,
    COMMAND_BOOT = 0x20,
    COMMAND_REPLY = 0x80
};

/* A reply to the present request: begin with the payload's exact length, put that many bytes, end. */
void edgeq_reply_begin(edgeq_agent_t *agent, uint8_t status, uint32_t payload_bytes);
void edgeq_reply_u16(edgeq_agent_t *agent, uint32_t value);
void edgeq_reply_u32(edgeq_agent_t *agent, uint32_t value);
void edgeq_reply_u64(edgeq_agent_t *agent, uint64_t value);
void edgeq_reply_bytes(edgeq_agent_t *agent, const void *bytes, uint32_t length);
void edgeq_reply_end(edgeq_agent_t *agent);
void edgeq_reply_status(edgeq_agent_t *agent, uint8_t status);                /* without payload */
void edgeq_reply_value(edgeq_agent_t *agent, uint8_t status, uint32_t value); /* with one u32 */

/* Where the host's bytes for an input go: kept, or in the arena. */
uint8_t *edgeq_agent_input(const edgeq_agent_t *agent, uint32_t index);

/* run.c */
void edgeq_run(edgeq_agent_t *agent, const uint8_t *payload, uint32_t length);
void edgeq_run_reply(edgeq_agent_t *agent);
void edgeq_layers(edgeq_agent_t *agent, const uint8_t *payload, uint32_t length);
uint32_t edgeq_max_runs(const edgeq_agent_t *agent);
uint32_t edgeq_max_layers(void);

/* i2c.c */
void edgeq_i2c(edgeq_agent_t *agent, const uint8_t *payload, uint32_t length);
uint8_t edgeq_i2c_check(const edgeq_agent_t *agent, uint8_t address); /* OK, or why it is refused */

/* memory.c */
/* The longest run of the arena's bytes from an offset on, at most *bytes of them, in one piece. */
const uint8_t *edgeq_arena_run(const edgeq_model_t *model, uint32_t offset, uint32_t *bytes);
void edgeq_arena_paint(const edgeq_model_t *model);
uint32_t edgeq_arena_used_bytes(const edgeq_model_t *model);
void edgeq_stack_paint(edgeq_agent_t *agent);
void edgeq_stack_measure(edgeq_agent_t *agent); /* since the paint; brings stack_used_bytes up to date */
uint32_t edgeq_stack_depth_bytes(const edgeq_agent_t *agent, const void *from);
void edgeq_memory(edgeq_agent_t *agent);

#endif
