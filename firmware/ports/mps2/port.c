/*
 * Arm MPS2 boards as QEMU has them (mps2-an385, -an386, -an500, -an505): CMSDK UART and timer.
 * Run with `-icount shift=6`: an instruction takes 64 ns, the timer's 25 MHz make 1.6 ticks of it. After n instructions
 * the timer has counted down by 1.6 n, rounded up; 5/8 of that, rounded down, is n. AN505 likewise at 20 MHz: 1.28.
 */
#include "cortex_m.h"

#if __ARM_ARCH >= 8 /* AN505, Cortex-M33, in secure state: the secure aliases */
#define UART         0x50200000u
#define TIMER        0x50000000u
#define BAUD_DIVIDER 174u /* 115,200 baud of 20 MHz */
#define INSTRUCTIONS 25u  /* of 32 ticks */
#define TICKS        32u
#else
#define UART         0x40004000u
#define TIMER        0x40000000u
#define BAUD_DIVIDER 217u /* 115,200 baud of 25 MHz */
#define INSTRUCTIONS 5u   /* of 8 ticks */
#define TICKS        8u
#endif

#define UART_DATA                    EDGEQ_REGISTER(UART + 0x00u)
#define UART_STATE                   EDGEQ_REGISTER(UART + 0x04u)
#define UART_CONTROL                 EDGEQ_REGISTER(UART + 0x08u)
#define UART_BAUD_DIVIDER            EDGEQ_REGISTER(UART + 0x10u)
#define STATE_TRANSMIT_FULL          1u
#define STATE_RECEIVE_FULL           2u
#define CONTROL_TRANSMIT_AND_RECEIVE 3u

#define TIMER_CONTROL EDGEQ_REGISTER(TIMER + 0x00u)
#define TIMER_VALUE   EDGEQ_REGISTER(TIMER + 0x04u) /* counts down */
#define TIMER_RELOAD  EDGEQ_REGISTER(TIMER + 0x08u)

static uint32_t last_value;
static uint64_t counted;

void edgeq_port_start(void) {
    UART_BAUD_DIVIDER = BAUD_DIVIDER;
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
    TIMER_CONTROL = 0;
    TIMER_RELOAD = 0xFFFFFFFFu;
    TIMER_VALUE = 0xFFFFFFFFu;
    TIMER_CONTROL = 1;
    last_value = 0xFFFFFFFFu;
    counted = 0;
}

void edgeq_port_timer_stop(void) {
    TIMER_CONTROL = 0;
}

uint64_t edgeq_port_ticks(void) {
    const uint32_t value = TIMER_VALUE;
    counted += last_value - value;
    last_value = value;
    return counted * INSTRUCTIONS / TICKS;
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
