/* The agent's commands but RUN and LAYERS; sessions and sequence numbers. */
#include "agent.h"

#include <string.h>

#include "internal.h"
#include "kept.h"

/* The agent that runs, for the fault handler. */
static edgeq_agent_t *started;

/* ---- replies ---- */

void edgeq_reply_begin(edgeq_agent_t *agent, uint8_t status, uint32_t payload_bytes) {
    uint8_t header[EDGEQ_HEADER_BYTES] = {1, (uint8_t)(agent->command | COMMAND_REPLY)};
    edgeq_put_u16(header + 2, agent->sequence);
    edgeq_put_u32(header + 4, agent->session);
    header[8] = status;
    edgeq_put_u16(header + 10, payload_bytes);
    edgeq_encode_begin(&agent->encoder);
    edgeq_encode(&agent->encoder, header, EDGEQ_HEADER_BYTES);
}

void edgeq_reply_bytes(edgeq_agent_t *agent, const void *bytes, uint32_t length) {
    edgeq_encode(&agent->encoder, bytes, length);
}

void edgeq_reply_u16(edgeq_agent_t *agent, uint32_t value) {
    uint8_t bytes[2];
    edgeq_put_u16(bytes, value);
    edgeq_encode(&agent->encoder, bytes, 2);
}

void edgeq_reply_u32(edgeq_agent_t *agent, uint32_t value) {
    uint8_t bytes[4];
    edgeq_put_u32(bytes, value);
    edgeq_encode(&agent->encoder, bytes, 4);
}

void edgeq_reply_u64(edgeq_agent_t *agent, uint64_t value) {
    edgeq_reply_u32(agent, (uint32_t)value);
    edgeq_reply_u32(agent, (uint32_t)(value >> 32));
}

void edgeq_reply_end(edgeq_agent_t *agent) {
    edgeq_encode_end(&agent->encoder);
}

void edgeq_reply_status(edgeq_agent_t *agent, uint8_t status) {
    edgeq_reply_begin(agent, status, 0);
    edgeq_reply_end(agent);
}

void edgeq_reply_value(edgeq_agent_t *agent, uint8_t status, uint32_t value) {
    edgeq_reply_begin(agent, status, 4);
    edgeq_reply_u32(agent, value);
    edgeq_reply_end(agent);
}

/* ---- commands ---- */

uint8_t *edgeq_agent_input(const edgeq_agent_t *agent, uint32_t index) {
    if (agent->kept_inputs == 0) {
        return agent->model->input(agent->model->arena, (int)index);
    }
    uint8_t *place = agent->kept_inputs;
    for (uint32_t i = 0; i < index; ++i) {
        place += agent->model->input_bytes[i];
    }
    return place;
}

static void reply_name(edgeq_agent_t *agent, const char *name) {
    char padded[64] = {0};
    for (uint32_t i = 0; i < sizeof padded && name[i] != 0; ++i) {
        padded[i] = name[i];
    }
    edgeq_reply_bytes(agent, padded, sizeof padded);
}

static uint32_t capabilities(const edgeq_agent_t *agent) {
    uint32_t bits = agent->port.capabilities;
    bits |= agent->kept_inputs != 0 ? EDGEQ_CAN_KEEP_INPUTS : 0;
    bits |= agent->port.timer_kind != EDGEQ_TIMER_NONE ? EDGEQ_CAN_PROFILE : 0;
    bits |= agent->port.stack_limit != 0 ? EDGEQ_CAN_MEASURE_STACK : 0;
    return bits;
}

static void send_hello(edgeq_agent_t *agent) {
    const edgeq_model_t *const model = agent->model;
    const uint8_t version[3] = {EDGEQ_FIRMWARE_VERSION_MAJOR, EDGEQ_FIRMWARE_VERSION_MINOR,
                                EDGEQ_FIRMWARE_VERSION_PATCH};
    const uint8_t reason = (uint8_t)agent->reset_reason;
    const uint8_t timer[2] = {agent->port.timer_kind, 1};
    edgeq_reply_begin(agent, STATUS_OK, 208u + 4u * (uint32_t)(model->inputs + model->outputs));
    edgeq_reply_u32(agent, agent->session);
    edgeq_reply_u32(agent, edgeq_kept.boot_count);
    edgeq_reply_bytes(agent, &reason, 1);
    edgeq_reply_bytes(agent, version, sizeof version);
    edgeq_reply_bytes(agent, timer, sizeof timer);
    edgeq_reply_u16(agent, agent->port.timer_resolution);
    edgeq_reply_u32(agent, agent->port.timer_hz);
    edgeq_reply_u32(agent, agent->port.core_hz);
    edgeq_reply_u32(agent, model->arena_bytes);
    edgeq_reply_u32(agent, agent->capture_capacity_bytes);
    edgeq_reply_u32(agent, capabilities(agent));
    edgeq_reply_u16(agent, EDGEQ_MAX_PAYLOAD_BYTES);
    edgeq_reply_u16(agent, edgeq_max_runs(agent));
    edgeq_reply_u16(agent, model->inputs);
    edgeq_reply_u16(agent, model->outputs);
    edgeq_reply_u16(agent, model->layers);
    edgeq_reply_u16(agent, edgeq_max_layers());
    edgeq_reply_bytes(agent, model->sha256, sizeof model->sha256);
    reply_name(agent, model->board);
    reply_name(agent, model->name);
    for (uint32_t i = 0; i < model->inputs; ++i) {
        edgeq_reply_u32(agent, model->input_bytes[i]);
    }
    for (uint32_t i = 0; i < model->outputs; ++i) {
        edgeq_reply_u32(agent, model->output_bytes[i]);
    }
    edgeq_reply_end(agent);
}

static void hello(edgeq_agent_t *agent, const uint8_t *payload, uint32_t length) {
    if (length != 4 || edgeq_get_u32(payload) != agent->session || agent->session == 0) {
        edgeq_reply_status(agent, STATUS_BAD_REQUEST);
        return;
    }
    if (agent->session != agent->open_session) {
        agent->open_session = agent->session;
        agent->last_sequence = agent->sequence;
        agent->last_command = COMMAND_HELLO;
    }
    send_hello(agent);
}

static void write_input(edgeq_agent_t *agent, const uint8_t *payload, uint32_t length) {
    if (length < 8 || edgeq_get_u16(payload + 2) != 0) {
        edgeq_reply_status(agent, STATUS_BAD_REQUEST);
        return;
    }
    const uint32_t index = edgeq_get_u16(payload);
    const uint32_t offset = edgeq_get_u32(payload + 4);
    const uint32_t bytes = length - 8u;
    if (index >= agent->model->inputs) {
        edgeq_reply_value(agent, STATUS_BAD_INDEX, agent->model->inputs);
        return;
    }
    const uint32_t size = agent->model->input_bytes[index];
    if (offset > size || bytes > size - offset) {
        edgeq_reply_value(agent, STATUS_BAD_RANGE, size);
        return;
    }
    memcpy(edgeq_agent_input(agent, index) + offset, payload + 8, bytes);
    edgeq_reply_value(agent, STATUS_OK, offset + bytes);
}

enum { SPACE_INPUT, SPACE_OUTPUT, SPACE_ARENA, SPACE_CAPTURE, SPACES };

static void read_bytes(edgeq_agent_t *agent, const uint8_t *payload, uint32_t length) {
    const edgeq_model_t *const model = agent->model;
    if (length != 12 || payload[0] >= SPACES || payload[1] != 0) {
        edgeq_reply_status(agent, STATUS_BAD_REQUEST);
        return;
    }
    const uint32_t counts[SPACES] = {model->inputs, model->outputs, 1, 1};
    const uint32_t space = payload[0];
    const uint32_t index = edgeq_get_u16(payload + 2);
    const uint32_t offset = edgeq_get_u32(payload + 4);
    const uint32_t bytes = edgeq_get_u32(payload + 8);
    if (index >= counts[space]) {
        edgeq_reply_value(agent, STATUS_BAD_INDEX, counts[space]);
        return;
    }
    const uint8_t *base = 0; /* of the arena: in pieces */
    uint32_t size = model->arena_bytes;
    if (space == SPACE_INPUT) {
        base = edgeq_agent_input(agent, index);
        size = model->input_bytes[index];
    } else if (space == SPACE_OUTPUT) {
        base = model->output(model->arena, (int)index);
        size = model->output_bytes[index];
    } else if (space == SPACE_CAPTURE) {
        base = agent->capture;
        size = agent->run.capture_bytes;
    }
    if (offset > size || bytes > size - offset || bytes > EDGEQ_MAX_PAYLOAD_BYTES) {
        edgeq_reply_value(agent, STATUS_BAD_RANGE, size);
        return;
    }
    edgeq_reply_begin(agent, STATUS_OK, bytes);
    for (uint32_t sent = 0, run; sent != bytes; sent += run) {
        run = bytes - sent;
        const uint8_t *const start =
            space == SPACE_ARENA ? edgeq_arena_run(model, offset + sent, &run) : base + offset + sent;
        edgeq_reply_bytes(agent, start, run);
    }
    edgeq_reply_end(agent);
}

static void reset_model(edgeq_agent_t *agent) {
    edgeq_arena_paint(agent->model);
    agent->model->reset(agent->model->arena);
    agent->profiled = false;
    agent->run.capture_bytes = 0;
}

static void reset(edgeq_agent_t *agent, const uint8_t *payload, uint32_t length) {
    if (length != 1 || payload[0] > 1) {
        edgeq_reply_status(agent, STATUS_BAD_REQUEST);
    } else if (payload[0] == 0) {
        reset_model(agent);
        edgeq_reply_status(agent, STATUS_OK);
    } else if ((agent->port.capabilities & EDGEQ_CAN_RESET_BOARD) == 0) {
        edgeq_reply_status(agent, STATUS_NOT_SUPPORTED);
    } else {
        edgeq_reply_status(agent, STATUS_OK);
        edgeq_kept.reset_reason = EDGEQ_RESET_ASKED;
        edgeq_kept_seal();
        edgeq_port_reset();
    }
}

static void fault(edgeq_agent_t *agent, const uint8_t *payload, uint32_t length) {
    uint32_t words[sizeof edgeq_kept.fault / sizeof(uint32_t)];
    if (length != 1 || payload[0] > 1) {
        edgeq_reply_status(agent, STATUS_BAD_REQUEST);
        return;
    }
    if (payload[0] == 1) {
        memset(&edgeq_kept.fault, 0, sizeof edgeq_kept.fault);
        edgeq_kept_seal();
    }
    memcpy(words, &edgeq_kept.fault, sizeof words);
    edgeq_reply_begin(agent, STATUS_OK, sizeof words);
    for (uint32_t i = 0; i < sizeof words / sizeof words[0]; ++i) {
        edgeq_reply_u32(agent, words[i]);
    }
    edgeq_reply_end(agent);
}

/* ---- requests ---- */

static void execute(edgeq_agent_t *agent, const uint8_t *payload, uint32_t length) {
    switch (agent->command) {
    case COMMAND_WRITE:
        write_input(agent, payload, length);
        break;
    case COMMAND_READ:
        read_bytes(agent, payload, length);
        break;
    case COMMAND_RUN:
        edgeq_run(agent, payload, length);
        break;
    case COMMAND_LAYERS:
        edgeq_layers(agent, payload, length);
        break;
    case COMMAND_MEMORY:
        if (length != 0) {
            edgeq_reply_status(agent, STATUS_BAD_REQUEST);
        } else {
            edgeq_memory(agent);
        }
        break;
    case COMMAND_RESET:
        reset(agent, payload, length);
        break;
    case COMMAND_FAULT:
        fault(agent, payload, length);
        break;
    case COMMAND_I2C:
        edgeq_i2c(agent, payload, length);
        break;
    default:
        edgeq_reply_status(agent, STATUS_UNKNOWN_COMMAND);
        break;
    }
}

/* Sequence numbers: execute what is new, repeat what was asked again, refuse what is older. */
static void in_session(edgeq_agent_t *agent, const uint8_t *payload, uint32_t length) {
    const uint16_t distance = (uint16_t)(agent->sequence - agent->last_sequence);
    const bool repeated = distance == 0 && agent->command == agent->last_command;
    if (distance >= 0x8000u || (distance == 0 && !repeated)) {
        edgeq_reply_status(agent, STATUS_STALE);
    } else if (repeated && agent->command == COMMAND_RUN) {
        edgeq_run_reply(agent);
    } else if (repeated && agent->command == COMMAND_RESET) {
        edgeq_reply_status(agent, STATUS_OK);
    } else {
        agent->last_sequence = agent->sequence;
        agent->last_command = agent->command;
        execute(agent, payload, length);
    }
}

static void answer_broken_frame(edgeq_agent_t *agent, uint8_t status) {
    agent->command = COMMAND_NONE;
    agent->sequence = 0;
    agent->session = 0;
    edgeq_reply_status(agent, status);
}

static void answer(edgeq_agent_t *agent) {
    const uint8_t *const frame = agent->frame;
    const uint8_t *const payload = frame + EDGEQ_HEADER_BYTES;
    const uint32_t length = agent->decoder.length - EDGEQ_HEADER_BYTES - EDGEQ_CRC_BYTES;
    if ((frame[1] & COMMAND_REPLY) != 0) {
        return;
    }
    if (frame[0] == 1 && edgeq_get_u16(frame + 10) != length) {
        answer_broken_frame(agent, STATUS_CORRUPT);
        return;
    }
    agent->command = frame[1];
    agent->sequence = edgeq_get_u16(frame + 2);
    agent->session = edgeq_get_u32(frame + 4);
    if (frame[0] != 1) {
        edgeq_reply_status(agent, STATUS_VERSION);
    } else if (frame[8] != 0 || frame[9] != 0) {
        edgeq_reply_status(agent, STATUS_BAD_REQUEST);
    } else if (agent->command == COMMAND_HELLO) {
        hello(agent, payload, length);
    } else if (agent->session != agent->open_session || agent->session == 0) {
        edgeq_reply_value(agent, STATUS_NO_SESSION, agent->open_session != 0);
    } else {
        in_session(agent, payload, length);
    }
    agent->command = COMMAND_NONE;
}

void edgeq_agent_poll(edgeq_agent_t *agent) {
    for (int32_t byte = edgeq_port_read(); byte >= 0; byte = edgeq_port_read()) {
        const edgeq_frame_t state = edgeq_decode(&agent->decoder, (uint8_t)byte);
        if (state == EDGEQ_FRAME_NONE) {
            continue;
        }
        if (state == EDGEQ_FRAME_WHOLE) {
            answer(agent);
        } else {
            answer_broken_frame(agent, state == EDGEQ_FRAME_TOO_LONG ? STATUS_TOO_LONG : STATUS_CORRUPT);
        }
        return;
    }
}

/* ---- start, faults ---- */

void edgeq_agent_fault(const edgeq_fault_t *record) {
    const uint32_t faults = edgeq_kept.fault.faults;
    edgeq_kept.fault = *record;
    edgeq_kept.fault.command = started != 0 ? started->command : 0;
    edgeq_kept.fault.layer = started != 0 ? started->run.layer : 0;
    edgeq_kept.fault.boot_count = edgeq_kept.boot_count;
    edgeq_kept.fault.faults = faults + 1u;
    edgeq_kept.reset_reason = EDGEQ_RESET_FAULT;
    edgeq_kept_seal();
}

static void share_spare(edgeq_agent_t *agent) {
    uint8_t *spare = agent->port.spare;
    uint32_t bytes = agent->port.spare_bytes;
    for (uint32_t i = 0; i < agent->model->inputs; ++i) {
        agent->input_total_bytes += agent->model->input_bytes[i];
    }
    if (bytes >= agent->input_total_bytes && spare != 0) {
        agent->kept_inputs = spare;
        memset(spare, 0, agent->input_total_bytes);
        spare += agent->input_total_bytes;
        bytes -= agent->input_total_bytes;
    }
    agent->capture = spare;
    agent->capture_capacity_bytes = bytes;
}

void edgeq_agent_start(edgeq_agent_t *agent, const edgeq_model_t *model) {
    static const uint8_t end = 0;
    memset(agent, 0, sizeof *agent);
    agent->model = model;
    agent->encoder.write = edgeq_port_write;
    edgeq_decoder_init(&agent->decoder, agent->frame, sizeof agent->frame);
    edgeq_port_info(&agent->port);
    agent->reset_reason = edgeq_kept_open();
    started = agent;
    edgeq_stack_paint(agent);
    share_spare(agent);
    reset_model(agent);
    edgeq_port_write(&end, 1);
    agent->command = COMMAND_BOOT;
    edgeq_reply_begin(agent, STATUS_OK, 8);
    edgeq_reply_u32(agent, edgeq_kept.boot_count);
    edgeq_reply_u32(agent, agent->reset_reason);
    edgeq_reply_end(agent);
    agent->command = COMMAND_NONE;
}
