/*
 * QEMU's RISC-V board `virt`: 16550 UART, a register that resets it, the core's count of instructions.
 * Run with `-bios none -icount shift=0`.
 */
#include "riscv.h"

#define UART                  0x10000000u
#define UART_BYTE(offset)     (*(volatile uint8_t *)(UART + (offset)))
#define UART_DATA             UART_BYTE(0)
#define UART_FIFO_CONTROL     UART_BYTE(2)
#define UART_LINE_CONTROL     UART_BYTE(3)
#define UART_LINE_STATUS      UART_BYTE(5)
#define FIFO_ON               1u
#define EIGHT_BITS            3u
#define STATUS_RECEIVED       0x01u
#define STATUS_TRANSMIT_EMPTY 0x20u
#define STATUS_IDLE           0x40u
#define TEST_FINISHER         EDGEQ_REGISTER(0x00100000u)
#define FINISHER_RESET        0x7777u

static uint64_t started_at;

static uint64_t instructions(void) {
    uint32_t high, low, again;
    do {
        __asm volatile("csrr %0, minstreth\n csrr %1, minstret\n csrr %2, minstreth"
                       : "=&r"(high), "=&r"(low), "=&r"(again));
    } while (high != again);
    return (uint64_t)high << 32 | low;
}

void edgeq_port_start(void) {
    UART_FIFO_CONTROL = FIFO_ON;
    UART_LINE_CONTROL = EIGHT_BITS;
}

int32_t edgeq_port_read(void) {
    return (UART_LINE_STATUS & STATUS_RECEIVED) != 0 ? (int32_t)UART_DATA : -1;
}

void edgeq_port_write(const uint8_t *bytes, uint32_t length) {
    for (uint32_t i = 0; i < length; ++i) {
        while ((UART_LINE_STATUS & STATUS_TRANSMIT_EMPTY) == 0) {
        }
        UART_DATA = bytes[i];
    }
}

void edgeq_port_timer_start(void) {
    started_at = instructions();
}

void edgeq_port_timer_stop(void) {
}

uint64_t edgeq_port_ticks(void) {
    return instructions() - started_at;
}

void edgeq_port_info(edgeq_port_info_t *info) {
    info->timer_kind = EDGEQ_TIMER_INSTRUCTIONS;
    info->timer_resolution = 1;
    info->progress_ticks = 20000000u;
    edgeq_riscv_info(info);
}

void edgeq_port_restart(void) {
    TEST_FINISHER = FINISHER_RESET;
    for (;;) {
    }
}

void edgeq_port_reset(void) {
    while ((UART_LINE_STATUS & STATUS_IDLE) == 0) {
    }
    edgeq_port_restart();
}
