/* RUN and LAYERS, and the hook that the generated code calls after each layer. */
#include <string.h>

#include "internal.h"

enum { FLAG_TIMED = 1, FLAG_PROFILE = 2, FLAG_CHECK_INPUTS = 4, FLAG_CAPTURE = 8, FLAG_SAMPLE = 16, FLAGS_KNOWN = 31 };

/* The generated code's hook has no argument for it: the agent whose RUN is under way. */
static edgeq_agent_t *running;

/* For ports where nothing is due meanwhile. */
__attribute__((weak)) void edgeq_port_serve(void) {
}

static uint64_t now(const edgeq_agent_t *agent) {
    return (agent->run.flags & FLAG_TIMED) != 0 ? edgeq_port_ticks() : 0;
}

static void send_progress(edgeq_agent_t *agent) {
    edgeq_reply_begin(agent, STATUS_PROGRESS, 8);
    edgeq_reply_u32(agent, agent->run.done);
    edgeq_reply_u32(agent, agent->run.layer);
    edgeq_reply_end(agent);
}

/* `time` is the timer's present value; without a timer the host hears nothing until the end. */
static void progress_if_due(edgeq_agent_t *agent, uint64_t time) {
    if (agent->port.progress_ticks != 0 && time - agent->run.progress_mark >= agent->port.progress_ticks) {
        send_progress(agent);
        agent->run.progress_mark = time;
    }
}

void edgeq_agent_layer(int32_t layer) {
    edgeq_agent_t *const agent = running;
    if (agent == 0) {
        return;
    }
    const uint64_t begin = now(agent);
    if ((agent->run.flags & FLAG_PROFILE) != 0 && (uint32_t)layer < agent->model->layers) {
        agent->model->layer_ticks[layer] = begin - agent->run.mark;
    }
    agent->run.layer = (uint32_t)layer + 1u;
    if ((agent->run.flags & FLAG_CAPTURE) != 0 && (uint32_t)layer == agent->run.capture_layer) {
        for (uint32_t done = 0, run; done != agent->run.capture_bytes; done += run) {
            run = agent->run.capture_bytes - done;
            const uint8_t *const start = edgeq_arena_run(agent->model, agent->run.capture_offset + done, &run);
            memcpy(agent->capture + done, start, run);
        }
    }
    progress_if_due(agent, begin);
    edgeq_port_serve();
    agent->run.mark = now(agent);
    agent->run.hook_ticks += agent->run.mark - begin;
}

static void place_inputs(const edgeq_agent_t *agent) {
    const edgeq_model_t *const model = agent->model;
    for (uint32_t i = 0; agent->kept_inputs != 0 && i < model->inputs; ++i) {
        memcpy(model->input(model->arena, (int)i), edgeq_agent_input(agent, i), model->input_bytes[i]);
    }
}

static int32_t run_once(edgeq_agent_t *agent, uint64_t *ticks) {
    const edgeq_model_t *const model = agent->model;
    place_inputs(agent);
    agent->run.layer = 0;
    agent->run.hook_ticks = 0;
    const uint64_t begin = now(agent);
    agent->run.mark = begin;
    const int32_t status = model->invoke(model->arena);
    *ticks = now(agent) - begin - agent->run.hook_ticks;
    return status;
}

/* All runs; 0 or the model's error. */
static int32_t run_all(edgeq_agent_t *agent, uint32_t runs) {
    int32_t status = 0;
    edgeq_stack_measure(agent);
    edgeq_stack_paint(agent);
    running = agent;
    if ((agent->run.flags & FLAG_TIMED) != 0) {
        edgeq_port_timer_start();
    }
    agent->run.progress_mark = now(agent);
    while (agent->run.done < runs && status == 0) {
        progress_if_due(agent, now(agent));
        status = run_once(agent, &agent->run.ticks[agent->run.done]);
        agent->run.done++;
    }
    if ((agent->run.flags & FLAG_TIMED) != 0) {
        edgeq_port_timer_stop();
    }
    running = 0;
    if (agent->port.stack_limit != 0) {
        agent->run_stack_bytes = edgeq_stack_depth_bytes(agent, __builtin_frame_address(0));
    }
    edgeq_stack_measure(agent);
    return status;
}

static uint32_t inputs_crc(const edgeq_agent_t *agent) {
    uint32_t crc = EDGEQ_CRC_START;
    for (uint32_t i = 0; i < agent->model->inputs; ++i) {
        crc = edgeq_crc32(crc, edgeq_agent_input(agent, i), agent->model->input_bytes[i]);
    }
    return ~crc;
}

uint32_t edgeq_max_runs(const edgeq_agent_t *agent) {
    return agent->kept_inputs != 0 ? EDGEQ_MAX_RUNS : 1u;
}

/* OK, or why the request is refused (with `value` for the reply). */
static uint8_t check_request(edgeq_agent_t *agent, const uint8_t *payload, uint32_t length) {
    const uint32_t arena_bytes = agent->model->arena_bytes;
    if (length != 20) {
        return STATUS_BAD_REQUEST;
    }
    const uint32_t runs = edgeq_get_u16(payload);
    const uint32_t flags = edgeq_get_u16(payload + 2);
    const uint32_t capture_layer = edgeq_get_u16(payload + 4);
    const uint32_t offset = edgeq_get_u32(payload + 8);
    const uint32_t bytes = edgeq_get_u32(payload + 12);
    const uint32_t crc = edgeq_get_u32(payload + 16);
    const bool capture = (flags & FLAG_CAPTURE) != 0;
    const bool sample = (flags & FLAG_SAMPLE) != 0;
    if (runs == 0 || (flags & ~(uint32_t)FLAGS_KNOWN) != 0 || (!sample && edgeq_get_u16(payload + 6) != 0) ||
        (!capture && (capture_layer | offset | bytes) != 0) || ((flags & FLAG_CHECK_INPUTS) == 0 && crc != 0)) {
        return STATUS_BAD_REQUEST;
    }
    const uint8_t refused = sample ? edgeq_i2c_check(agent, payload[6]) : STATUS_OK;
    if (refused != STATUS_OK) {
        return refused;
    }
    agent->run.value = edgeq_max_runs(agent);
    if (runs > agent->run.value) {
        return STATUS_TOO_MANY_RUNS;
    }
    agent->run.value = agent->model->layers;
    if (capture && capture_layer >= agent->model->layers) {
        return STATUS_BAD_INDEX;
    }
    agent->run.value = bytes > agent->capture_capacity_bytes ? agent->capture_capacity_bytes : arena_bytes;
    if (bytes > agent->capture_capacity_bytes || offset > arena_bytes || bytes > arena_bytes - offset) {
        return STATUS_BAD_RANGE;
    }
    agent->run.value = (flags & FLAG_CHECK_INPUTS) != 0 ? inputs_crc(agent) : 0;
    if (agent->run.value != crc) {
        return STATUS_INPUT_MISMATCH;
    }
    agent->run.flags = (uint16_t)((flags & FLAG_PROFILE) != 0 ? flags | FLAG_TIMED : flags);
    agent->run.capture_layer = (uint16_t)capture_layer;
    agent->run.capture_offset = offset;
    agent->run.capture_bytes = capture ? bytes : agent->run.capture_bytes;
    return STATUS_OK;
}

void edgeq_run(edgeq_agent_t *agent, const uint8_t *payload, uint32_t length) {
    agent->run.done = 0;
    agent->run.model_status = 0;
    agent->run.status = check_request(agent, payload, length);
    if (agent->run.status == STATUS_OK) {
        agent->run.model_status = run_all(agent, edgeq_get_u16(payload));
        agent->profiled = (agent->run.flags & FLAG_PROFILE) != 0 && agent->run.model_status == 0;
        agent->run.status = agent->run.model_status == 0 ? STATUS_OK : STATUS_MODEL_FAILED;
        if ((agent->run.flags & FLAG_SAMPLE) != 0 && agent->run.status == STATUS_OK) {
            agent->run.value = edgeq_port_i2c(payload[6], payload + 7, 1, agent->run.sample, sizeof agent->run.sample);
            agent->run.status = agent->run.value == EDGEQ_I2C_OK ? STATUS_OK : STATUS_I2C_FAILED;
        }
    }
    edgeq_run_reply(agent);
}

void edgeq_run_reply(edgeq_agent_t *agent) {
    const uint8_t status = agent->run.status;
    const bool sample = (agent->run.flags & FLAG_SAMPLE) != 0 && status == STATUS_OK;
    if (status == STATUS_BAD_REQUEST || status == STATUS_NOT_SUPPORTED) {
        edgeq_reply_status(agent, status);
        return;
    }
    if (status != STATUS_OK && status != STATUS_MODEL_FAILED) {
        edgeq_reply_value(agent, status, agent->run.value);
        return;
    }
    edgeq_reply_begin(agent, status, 8u + 8u * agent->run.done + (sample ? 2u : 0u));
    edgeq_reply_u16(agent, agent->run.done);
    edgeq_reply_u16(agent, agent->run.flags);
    edgeq_reply_u32(agent, (uint32_t)agent->run.model_status);
    for (uint32_t i = 0; i < agent->run.done; ++i) {
        edgeq_reply_u64(agent, agent->run.ticks[i]);
    }
    if (sample) {
        edgeq_reply_bytes(agent, agent->run.sample, sizeof agent->run.sample);
    }
    edgeq_reply_end(agent);
}

uint32_t edgeq_max_layers(void) {
    return (EDGEQ_MAX_PAYLOAD_BYTES - 4u) / 8u;
}

void edgeq_layers(edgeq_agent_t *agent, const uint8_t *payload, uint32_t length) {
    if (length != 4) {
        edgeq_reply_status(agent, STATUS_BAD_REQUEST);
        return;
    }
    const uint32_t first = edgeq_get_u16(payload);
    const uint32_t count = edgeq_get_u16(payload + 2);
    if (!agent->profiled) {
        edgeq_reply_status(agent, STATUS_NO_PROFILE);
        return;
    }
    if (first > agent->model->layers || count > agent->model->layers - first || count > edgeq_max_layers()) {
        edgeq_reply_value(agent, STATUS_BAD_RANGE, agent->model->layers);
        return;
    }
    edgeq_reply_begin(agent, STATUS_OK, 4u + 8u * count);
    edgeq_reply_u16(agent, first);
    edgeq_reply_u16(agent, count);
    for (uint32_t i = 0; i < count; ++i) {
        edgeq_reply_u64(agent, agent->model->layer_ticks[first + i]);
    }
    edgeq_reply_end(agent);
}
