/*
 * The agent as a process: the line is standard input and output (a pty, a socket, a pipe). A restart is an exec of
 * the same program; what outlives it travels as an argument.
 */
#define _GNU_SOURCE /* register names of a signal's context */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"

#define SPARE_BYTES (8u << 20)
#define LINE_IN     0
#define LINE_OUT    1

edgeq_kept_t edgeq_kept;

static char *program;
static uint8_t spare[SPARE_BYTES];
static uint8_t in[4096], out[4096];
static size_t in_next, in_count, out_count;
static bool ended; /* the line, at its other end */

static void set_raw(int line) {
    struct termios mode;
    if (tcgetattr(line, &mode) == 0) {
        mode.c_iflag = 0;
        mode.c_oflag = 0;
        mode.c_lflag = 0;
        mode.c_cflag = (mode.c_cflag & ~(tcflag_t)(CSIZE | PARENB)) | CS8 | CREAD | CLOCAL;
        mode.c_cc[VMIN] = 1;
        mode.c_cc[VTIME] = 0;
        (void)tcsetattr(line, TCSANOW, &mode);
    }
}

/* The other end is gone: nobody is left to report to. */
static void hang_up(void) {
    _exit(0);
}

static void flush(void) {
    size_t sent = 0;
    while (sent < out_count) {
        const ssize_t count = write(LINE_OUT, out + sent, out_count - sent);
        if (count >= 0) {
            sent += (size_t)count;
        } else if (errno != EINTR) {
            hang_up();
        }
    }
    out_count = 0;
}

static bool arrives(int within_ms) {
    struct pollfd line = {LINE_IN, POLLIN, 0};
    return poll(&line, 1, within_ms) > 0;
}

int32_t edgeq_port_read(void) {
    if (in_next == in_count && !ended && arrives(0)) {
        const ssize_t count = read(LINE_IN, in, sizeof in);
        ended = count == 0 || (count < 0 && errno != EINTR);
        in_next = 0;
        in_count = count > 0 ? (size_t)count : 0;
    }
    return in_next < in_count ? in[in_next++] : -1;
}

/* Nothing is left to do until something arrives. */
static void rest(void) {
    if (in_next == in_count) {
        flush();
        if (ended) {
            hang_up();
        }
        (void)arrives(-1);
    }
}

void edgeq_port_write(const uint8_t *bytes, uint32_t length) {
    for (uint32_t i = 0; i < length; ++i) {
        out[out_count++] = bytes[i];
        if (out_count == sizeof out || bytes[i] == 0) {
            flush();
        }
    }
}

static struct timespec started_at;

void edgeq_port_timer_start(void) {
    (void)clock_gettime(CLOCK_MONOTONIC, &started_at);
}

void edgeq_port_timer_stop(void) {
}

uint64_t edgeq_port_ticks(void) {
    struct timespec at;
    (void)clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)((int64_t)(at.tv_sec - started_at.tv_sec) * 1000000000 + (at.tv_nsec - started_at.tv_nsec));
}

void edgeq_port_info(edgeq_port_info_t *info) {
    info->timer_kind = EDGEQ_TIMER_NS;
    info->timer_resolution = 1;
    info->timer_hz = 1000000000u;
    info->progress_ticks = 250000000u;
    info->capabilities = EDGEQ_CAN_RECORD_FAULTS | EDGEQ_CAN_RESET_BOARD;
    info->spare = spare;
    info->spare_bytes = sizeof spare;
    info->data_bytes = EDGEQ_UNKNOWN;
    info->bss_bytes = EDGEQ_UNKNOWN;
}

/* ---- restart and faults ---- */

static const char hex[] = "0123456789abcdef";

void edgeq_port_reset(void) {
    static char record[2 * sizeof edgeq_kept + 1];
    char *arguments[] = {program, record, 0};
    const uint8_t *const bytes = (const uint8_t *)&edgeq_kept;
    for (size_t i = 0; i < sizeof edgeq_kept; ++i) {
        record[2 * i] = hex[bytes[i] >> 4];
        record[2 * i + 1] = hex[bytes[i] & 15];
    }
    (void)execv(program, arguments);
    _exit(3);
}

static void take_kept(const char *record) {
    uint8_t *const bytes = (uint8_t *)&edgeq_kept;
    for (size_t i = 0; i < 2 * sizeof edgeq_kept; ++i) {
        const char *const digit = record[i] != 0 ? strchr(hex, record[i]) : 0;
        if (digit == 0) {
            return;
        }
        bytes[i / 2] = (uint8_t)(bytes[i / 2] << 4 | (uint8_t)(digit - hex));
    }
}

static void on_signal(int number, siginfo_t *about, void *context) {
    edgeq_fault_t fault;
    memset(&fault, 0, sizeof fault);
    fault.kind = EDGEQ_FAULT_SIGNAL;
    fault.cfsr = (uint32_t)number;
    fault.bfar = (uint32_t)(uintptr_t)about->si_addr;
#if defined(__linux__) && defined(__x86_64__)
    fault.pc = (uint32_t)((const ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    fault.sp = (uint32_t)((const ucontext_t *)context)->uc_mcontext.gregs[REG_RSP];
#elif defined(__linux__) && defined(__aarch64__)
    fault.pc = (uint32_t)((const ucontext_t *)context)->uc_mcontext.pc;
    fault.sp = (uint32_t)((const ucontext_t *)context)->uc_mcontext.sp;
#else
    (void)context;
#endif
    edgeq_agent_fault(&fault);
    edgeq_port_reset();
}

static void catch_signals(void) {
    static const int numbers[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    static uint8_t signal_stack[65536];
    const stack_t stack = {.ss_sp = signal_stack, .ss_size = sizeof signal_stack};
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    (void)sigaltstack(&stack, 0);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; ++i) {
        (void)sigaction(numbers[i], &action, 0);
    }
    (void)signal(SIGPIPE, SIG_IGN);
}

int main(int count, char **arguments) {
    static edgeq_agent_t agent;
    program = arguments[0];
    if (count == 2 && strlen(arguments[1]) == 2 * sizeof edgeq_kept) {
        take_kept(arguments[1]);
    }
    set_raw(LINE_IN);
    catch_signals();
    edgeq_agent_start(&agent, &edgeq_model);
    for (;;) {
        edgeq_agent_poll(&agent);
        rest();
    }
}
