/*
 * Arm MPS3 with Corstone-300 as QEMU has it (mps3-an547): CMSDK UART and the SSE-300's 64-bit system counter.
 * Run with `-icount shift=5`: an instruction takes 32 ns, the counter's 32 MHz make 1.024 ticks of it.
 */
#include "cortex_m.h"

#define UART                         0x59303000u
#define UART_DATA                    EDGEQ_REGISTER(UART + 0x00u)
#define UART_STATE                   EDGEQ_REGISTER(UART + 0x04u)
#define UART_CONTROL                 EDGEQ_REGISTER(UART + 0x08u)
#define UART_BAUD_DIVIDER            EDGEQ_REGISTER(UART + 0x10u)
#define STATE_TRANSMIT_FULL          1u
#define STATE_RECEIVE_FULL           2u
#define CONTROL_TRANSMIT_AND_RECEIVE 3u

#define COUNTER         0x58100000u
#define COUNTER_CONTROL EDGEQ_REGISTER(COUNTER + 0x00u)
#define COUNTER_LOW     EDGEQ_REGISTER(COUNTER + 0x08u)
#define COUNTER_HIGH    EDGEQ_REGISTER(COUNTER + 0x0Cu)

void edgeq_port_start(void) {
    UART_BAUD_DIVIDER = 278; /* 115,200 baud of 32 MHz */
    UART_CONTROL = CONTROL_TRANSMIT_AND_RECEIVE;
    (void)UART_DATA; /* QEMU looks at the line again only after a read: what came before would be stuck for ever */
}

int32_t edgeq_port_read(void) {
    return (UART_STATE & STATE_RECEIVE_FULL) != 0 ? (int32_t)(UART_DATA & 0xFFu) : -1;
}

void edgeq_port_write(const uint8_t *bytes, uint32_t length) {
    for (uint32_t i = 0; i < length; ++i) {
        while ((UART_STATE & STATE_TRANSMIT_FULL) != 0) {
        }
        UART_DATA = bytes[i];
    }
}

void edgeq_port_timer_start(void) {
    COUNTER_CONTROL = 0;
    COUNTER_LOW = 0;
    COUNTER_HIGH = 0;
    COUNTER_CONTROL = 1;
}

void edgeq_port_timer_stop(void) {
    COUNTER_CONTROL = 0;
}

uint64_t edgeq_port_ticks(void) {
    uint32_t high = COUNTER_HIGH;
    uint32_t low = COUNTER_LOW;
    if (COUNTER_HIGH != high) {
        high = COUNTER_HIGH;
        low = COUNTER_LOW;
    }
    return ((uint64_t)high << 32 | low) * 125u / 128u;
}

void edgeq_port_info(edgeq_port_info_t *info) {
    info->timer_kind = EDGEQ_TIMER_INSTRUCTIONS;
    info->timer_resolution = 1;
    info->progress_ticks = 20000000u;
    edgeq_cortex_m_info(info);
}

void edgeq_port_reset(void) {
    while ((UART_STATE & STATE_TRANSMIT_FULL) != 0) {
    }
    edgeq_cortex_m_reset();
}
