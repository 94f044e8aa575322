/*
 * The MLPerf Tiny device protocol in place of the agent's own: ASCII commands that end in '%', for mlcommons/tiny's
 * benchmark/runner in performance and accuracy modes. One source for all ports, which see the same functions as the
 * agent's. Timestamps are microseconds of the port's timer; where that counts instructions (an emulator), they are
 * instructions, and no latency follows from them.
 */
#include "mlperf.h"

#include <string.h>

#define COMMAND_BYTES   80u
#define BYTES_IN_A_LINE 8u
/* How long the first command's answer waits for another command, and how often it looks at most. */
#define FOLLOWS_US      20000u
#define FOLLOWS_TICKS   2000000u /* where ticks are no time */
#define FOLLOWS_LOOKS   1000000u

static char command[COMMAND_BYTES];
static uint32_t command_length;                           /* COMMAND_BYTES: too long */
static char heard[COMMAND_BYTES];                         /* what came while an answer was sent */
static uint32_t heard_length, heard_next, heard_commands; /* these: the '%' from heard_next on */
static bool answered;                                     /* a command since the start */
static uint32_t expected_bytes, loaded_bytes;
static const edgeq_model_t *model;
static edgeq_port_info_t port;

/* ---- output ---- */

static bool same(const char *left, const char *right) {
    const size_t length = strlen(left);
    return length == strlen(right) && memcmp(left, right, length) == 0;
}

/* A UART may hold a single byte: what arrives is taken between the bytes that are sent. */
static void hear(void) {
    const int32_t byte = heard_length < COMMAND_BYTES ? edgeq_port_read() : -1;
    if (byte >= 0) {
        heard[heard_length++] = (char)byte;
        heard_commands += byte == '%' ? 1u : 0u;
    }
}

static int32_t next_byte(void) {
    if (heard_next < heard_length) {
        heard_commands -= heard[heard_next] == '%' ? 1u : 0u;
        return (uint8_t)heard[heard_next++];
    }
    heard_length = 0;
    heard_next = 0;
    return edgeq_port_read();
}

static void put(const char *text) {
    for (; *text != 0; ++text) {
        edgeq_port_write((const uint8_t *)text, 1);
        hear();
    }
}

static void put_number(uint64_t value) {
    char digits[21];
    char *at = digits + sizeof digits - 1;
    *at = 0;
    do {
        *--at = (char)('0' + (char)(value % 10u));
        value /= 10u;
    } while (value != 0);
    put(at);
}

static void put_hex(uint8_t value) {
    static const char hex[] = "0123456789abcdef";
    const char digits[] = {hex[value >> 4], hex[value & 15u], 0};
    put(digits);
}

static void put_field(const char *name, const char *value) {
    put(name);
    put("-[");
    put(value);
    put("]\r\n");
}

/* As printf's "%0.3f": to the nearest thousandth, ties to even; what no model answers, 10^15 and more, as "inf". */
static void put_thousandths(float value) {
    const float scaled = (value < 0 ? -value : value) * 1000.0f;
    if (!(scaled < 1.0e18f)) {
        put(value == value ? "inf" : "nan");
        return;
    }
    uint64_t whole = (uint64_t)scaled;
    const float rest = scaled - (float)whole;
    whole += rest > 0.5f || (rest == 0.5f && (whole & 1u) != 0) ? 1u : 0u;
    const uint32_t part = (uint32_t)(whole % 1000u);
    const char digits[] = {'.', (char)('0' + (char)(part / 100u)), (char)('0' + (char)(part / 10u % 10u)),
                           (char)('0' + (char)(part % 10u)), 0};
    put(value < 0 ? "-" : "");
    put_number(whole / 1000u);
    put(digits);
}

static uint64_t microseconds(void) {
    const uint64_t ticks = edgeq_port_ticks();
    if (port.timer_kind == EDGEQ_TIMER_NS) {
        return ticks / 1000u;
    }
    if (port.timer_kind == EDGEQ_TIMER_CYCLES) {
        return ticks / port.timer_hz * 1000000u + ticks % port.timer_hz * 1000000u / port.timer_hz;
    }
    return ticks;
}

static void put_timestamp(void) {
    put("m-lap-us-");
    put_number(microseconds());
    put("\r\n");
}

/* ---- inference ---- */

/* For ports where nothing is due meanwhile. */
__attribute__((weak)) void edgeq_port_serve(void) {
}

static float loaded_float(uint32_t index) {
    float value;
    memcpy(&value, edgeq_mlperf.buffer + 4u * index, sizeof value);
    return value;
}

/* To the nearest, ties away from zero, saturated. */
static int8_t quantized(float value) {
    const float scaled = value / edgeq_mlperf.input_scale;
    const float shifted = (scaled < 0 ? scaled - 0.5f : scaled + 0.5f);
    if (!(shifted > -1.0e6f && shifted < 1.0e6f)) {
        return shifted > 0 ? 127 : -128;
    }
    const int32_t integer = (int32_t)shifted + edgeq_mlperf.input_zero_point;
    return (int8_t)(integer < -128 ? -128 : integer > 127 ? 127 : integer);
}

static void place_input(void) {
    int8_t *const input = model->input(model->arena, 0);
    for (uint32_t i = 0; i < model->input_bytes[0]; ++i) {
        switch (edgeq_mlperf.input) {
        case EDGEQ_MLPERF_FLOAT:
            input[i] = quantized(loaded_float(i));
            break;
        case EDGEQ_MLPERF_UNSIGNED:
            input[i] = (int8_t)(edgeq_mlperf.buffer[i] - 128);
            break;
        default:
            input[i] = (int8_t)edgeq_mlperf.buffer[i];
            break;
        }
    }
}

static float output_value(uint32_t index) {
    const int8_t *const output = model->output(model->arena, 0);
    return (float)(output[index] - edgeq_mlperf.output_zero_point) * edgeq_mlperf.output_scale;
}

/* Anomaly detection answers how far the output is from the input: the mean of the squared differences. */
static float anomaly(void) {
    const uint32_t count = model->output_bytes[0];
    float sum = 0;
    for (uint32_t i = 0; i < count; ++i) {
        const float difference = output_value(i) - loaded_float(i);
        sum += difference * difference;
    }
    return sum / (float)count;
}

static void put_results(void) {
    put("m-results-[");
    if (edgeq_mlperf.input == EDGEQ_MLPERF_FLOAT) {
        put_thousandths(anomaly());
    } else {
        for (uint32_t i = 0; i < model->output_bytes[0]; ++i) {
            put(i == 0 ? "" : ",");
            put_thousandths(output_value(i));
        }
    }
    put("]\r\n");
}

/* 0, or the model's error. Inputs are placed anew each time: later layers reuse their place. */
static int32_t invoke(uint32_t times) {
    int32_t status = 0;
    for (uint32_t i = 0; i < times && status == 0; ++i) {
        place_input();
        status = model->invoke(model->arena);
        edgeq_port_serve();
        (void)edgeq_port_ticks();
    }
    return status;
}

static void infer(uint32_t times, uint32_t warmups) {
    if (loaded_bytes != edgeq_mlperf.buffer_bytes) {
        put("e-[Load an input of ");
        put_number(edgeq_mlperf.buffer_bytes);
        put(" bytes first]\r\n");
        return;
    }
    put("m-warmup-start-");
    put_number(warmups);
    put("\r\n");
    int32_t status = invoke(warmups);
    put("m-warmup-done\r\nm-infer-start-");
    put_number(times);
    put("\r\n");
    put_timestamp();
    status = status == 0 ? invoke(times) : status;
    put_timestamp();
    if (status != 0) {
        put("e-[Inference failed]\r\n");
        return;
    }
    put("m-infer-done\r\n");
    put_results();
}

/* ---- commands ---- */

/* The next word of `*text`, which is moved behind it; empty at the end. */
static char *word(char **text) {
    char *start = *text;
    while (*start == ' ' || *start == '\r' || *start == '\n') {
        ++start;
    }
    char *end = start;
    while (*end != 0 && *end != ' ' && *end != '\r' && *end != '\n') {
        ++end;
    }
    *text = *end == 0 ? end : end + 1;
    *end = 0;
    return start;
}

/* A decimal number; `otherwise` for an empty word, 0 for what is no number. */
static uint32_t number(const char *text, uint32_t otherwise) {
    uint32_t value = 0;
    if (*text == 0) {
        return otherwise;
    }
    for (; *text >= '0' && *text <= '9' && value < 100000000u; ++text) {
        value = 10u * value + (uint32_t)(*text - '0');
    }
    return *text == 0 ? value : 0;
}

static int32_t nibble(char digit) {
    if (digit >= '0' && digit <= '9') {
        return digit - '0';
    }
    const char lower = (char)(digit | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

static void load_begin(const char *count) {
    const uint32_t bytes = number(count, 0);
    if (bytes == 0 || bytes > edgeq_mlperf.buffer_bytes) {
        put("e-[Command 'db load' takes 1 to ");
        put_number(edgeq_mlperf.buffer_bytes);
        put(" bytes]\r\n");
        return;
    }
    expected_bytes = bytes;
    loaded_bytes = 0;
    put("m-[Expecting ");
    put_number(bytes);
    put(" bytes]\r\n");
}

static void load(const char *digits) {
    const uint32_t length = (uint32_t)strlen(digits);
    for (uint32_t i = 0; i < length; ++i) {
        if (length % 2u != 0 || nibble(digits[i]) < 0) {
            put("e-[Not pairs of hex digits]\r\n");
            return;
        }
    }
    for (uint32_t i = 0; i < length && loaded_bytes < expected_bytes; i += 2) {
        edgeq_mlperf.buffer[loaded_bytes++] = (uint8_t)(nibble(digits[i]) << 4 | nibble(digits[i + 1]));
        if (loaded_bytes == expected_bytes) {
            put("m-load-done\r\n");
        }
    }
}

static void print_loaded(void) {
    for (uint32_t i = 0; i < loaded_bytes; ++i) {
        put(i % BYTES_IN_A_LINE == 0 ? "m-buffer-" : "-");
        put_hex(edgeq_mlperf.buffer[i]);
        if (i % BYTES_IN_A_LINE == BYTES_IN_A_LINE - 1u || i + 1u == loaded_bytes) {
            put("\r\n");
        }
    }
}

static void database(char *rest) {
    const char *const what = word(&rest);
    if (same(what, "load")) {
        load_begin(word(&rest));
    } else if (same(what, "print")) {
        print_loaded();
    } else {
        load(what);
    }
}

static void execute(char *rest) {
    const char *const name = word(&rest);
    if (same(name, "name")) {
        put_field("m-name-dut", model->board);
    } else if (same(name, "profile")) {
        put_field("m-profile", "ULPMark for tinyML Firmware V0.0.1");
        put_field("m-model", model->name);
    } else if (same(name, "timestamp")) {
        put_timestamp();
    } else if (same(name, "db")) {
        database(rest);
    } else if (same(name, "infer")) {
        const uint32_t times = number(word(&rest), 1);
        infer(times, number(word(&rest), 0));
    } else if (same(name, "results")) {
        put_results();
    } else if (same(name, "help")) {
        put("name%\r\nprofile%\r\ntimestamp%\r\ndb load N%\r\ndb HEX%\r\ndb print%\r\ninfer N "
            "W%\r\nresults%\r\nhelp%\r\n");
    } else {
        put("e-[Unknown command: ");
        put(name);
        put("]\r\n");
    }
}

/*
 * Whether another command comes although this one is not yet answered to the end. The official runner never does that,
 * but for one case: the board restarted when its port was opened, and the runner took the banner's m-ready for the end
 * of its first command's answer. From then on each answer would count for the command after. The two are answered by
 * one m-ready, and its counting is right again.
 */
static bool another_follows(void) {
    const bool is_time = port.timer_kind != EDGEQ_TIMER_INSTRUCTIONS;
    const uint64_t start = microseconds();
    for (uint32_t looks = 0; looks < FOLLOWS_LOOKS; ++looks) {
        hear();
        if (heard_commands != 0) {
            return true;
        }
        if (microseconds() - start >= (is_time ? FOLLOWS_US : FOLLOWS_TICKS)) {
            return false;
        }
    }
    return false;
}

static void answer(void) {
    if (command_length == COMMAND_BYTES) {
        put("e-[Command too long]\r\n");
    } else {
        command[command_length] = 0;
        execute(command);
    }
    command_length = 0;
    const bool first = !answered;
    answered = true;
    if (!first || !another_follows()) {
        put("m-ready\r\n");
    }
}

void edgeq_agent_poll(edgeq_agent_t *agent) {
    (void)agent;
    for (int32_t byte = next_byte(); byte >= 0; byte = next_byte()) {
        if (byte == '%') {
            answer();
        } else if (command_length + 1u < COMMAND_BYTES) {
            command[command_length++] = (char)byte;
        } else {
            command_length = COMMAND_BYTES;
        }
    }
    (void)edgeq_port_ticks();
}

/* ---- start, faults ---- */

void edgeq_agent_fault(const edgeq_fault_t *fault) {
    edgeq_kept.fault = *fault;
    edgeq_kept.reset_reason = EDGEQ_RESET_FAULT;
    edgeq_kept_seal();
}

void edgeq_agent_start(edgeq_agent_t *agent, const edgeq_model_t *its_model) {
    (void)agent;
    model = its_model;
    edgeq_port_info(&port);
    model->reset(model->arena);
    edgeq_port_timer_start();
    put("m-timestamp-mode-performance\r\n");
    put_timestamp();
    if (edgeq_kept_open() == EDGEQ_RESET_FAULT) {
        put("e-[Restarted after a fault]\r\n");
    }
    put("m-init-done\r\nm-ready\r\n");
}
