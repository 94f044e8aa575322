/* How much of arena and stack was touched: both are painted and looked through. */
#include <string.h>

#include "internal.h"

#define ARENA_PAINT        0xA5u
#define STACK_PAINT        0xEDE6EDE6u
/* Left alone below the painting function's frame address: its own variables. */
#define STACK_MARGIN_BYTES 64u

const uint8_t *edgeq_arena_run(const edgeq_model_t *model, uint32_t offset, uint32_t *bytes) {
    const edgeq_piece_t *piece = model->pieces;
    while (offset >= piece->bytes && piece + 1 < model->pieces + model->piece_count) {
        offset -= piece->bytes;
        ++piece;
    }
    const uint32_t left = piece->bytes - offset;
    *bytes = *bytes < left ? *bytes : left;
    return piece->start + offset;
}

void edgeq_arena_paint(const edgeq_model_t *model) {
    for (uint32_t i = 0; i < model->piece_count; ++i) {
        memset(model->pieces[i].start, (int)ARENA_PAINT, model->pieces[i].bytes);
    }
}

uint32_t edgeq_arena_used_bytes(const edgeq_model_t *model) {
    uint32_t unused = 0;
    for (uint32_t i = 0; i < model->piece_count; ++i) {
        const uint8_t *const start = model->pieces[i].start;
        const uint8_t *end = start + model->pieces[i].bytes;
        while (end != start && *--end == ARENA_PAINT) {
            ++unused;
        }
    }
    return model->arena_bytes - unused;
}

static uint32_t *lowest_touched(const edgeq_agent_t *agent) {
    uint32_t *word = agent->port.stack_limit;
    while (word < agent->port.stack_top && *word == STACK_PAINT) {
        ++word;
    }
    return word;
}

uint32_t edgeq_stack_depth_bytes(const edgeq_agent_t *agent, const void *from) {
    const uintptr_t lowest = (uintptr_t)lowest_touched(agent);
    return (uintptr_t)from > lowest ? (uint32_t)((uintptr_t)from - lowest) : 0;
}

void edgeq_stack_measure(edgeq_agent_t *agent) {
    if (agent->port.stack_limit == 0) {
        return;
    }
    const uint32_t used = edgeq_stack_depth_bytes(agent, agent->port.stack_top);
    if (used > agent->stack_used_bytes) {
        agent->stack_used_bytes = used;
    }
}

void edgeq_stack_paint(edgeq_agent_t *agent) {
    if (agent->port.stack_limit == 0) {
        return;
    }
    const uintptr_t end = (uintptr_t)__builtin_frame_address(0) - STACK_MARGIN_BYTES;
    for (volatile uint32_t *word = agent->port.stack_limit; (uintptr_t)word < end; ++word) {
        *word = STACK_PAINT;
    }
}

void edgeq_memory(edgeq_agent_t *agent) {
    const edgeq_port_info_t *const port = &agent->port;
    const bool stack_known = port->stack_limit != 0;
    edgeq_stack_measure(agent);
    edgeq_reply_begin(agent, STATUS_OK, 32);
    edgeq_reply_u32(agent, agent->model->arena_bytes);
    edgeq_reply_u32(agent, edgeq_arena_used_bytes(agent->model));
    edgeq_reply_u32(agent, stack_known ? 4u * (uint32_t)(port->stack_top - port->stack_limit) : EDGEQ_UNKNOWN);
    edgeq_reply_u32(agent, stack_known ? agent->stack_used_bytes : EDGEQ_UNKNOWN);
    edgeq_reply_u32(agent, stack_known ? agent->run_stack_bytes : EDGEQ_UNKNOWN);
    edgeq_reply_u32(agent, 0);
    edgeq_reply_u32(agent, port->data_bytes);
    edgeq_reply_u32(agent, port->bss_bytes);
    edgeq_reply_end(agent);
}
