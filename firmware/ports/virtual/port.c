/* EdgeQ's own virtual board (Unicorn): a UART, a counter of executed instructions, a reset, an I2C bus. */
#include "cortex_m.h"
#include "twi.h"

#define UART_DATA     EDGEQ_REGISTER(0x40000000u)
#define UART_STATUS   EDGEQ_REGISTER(0x40000004u) /* bit 0: a byte waits */
#define TIMER_LOW     EDGEQ_REGISTER(0x40001000u) /* reading it latches the high word */
#define TIMER_HIGH    EDGEQ_REGISTER(0x40001004u)
#define TIMER_CONTROL EDGEQ_REGISTER(0x40001008u) /* 1: count from 0, 0: stop */
#define POWER         EDGEQ_REGISTER(0x40002000u) /* 1: reset */

void edgeq_port_start(void) {
    TWI_ENABLE = TWI_ENABLED;
}

uint32_t edgeq_port_i2c(uint8_t address, const uint8_t *out, uint32_t out_bytes, uint8_t *in, uint32_t in_bytes) {
    return twi_transfer(address, out, out_bytes, in, in_bytes);
}

int32_t edgeq_port_read(void) {
    return (UART_STATUS & 1u) != 0 ? (int32_t)(UART_DATA & 0xFFu) : -1;
}

void edgeq_port_write(const uint8_t *bytes, uint32_t length) {
    for (uint32_t i = 0; i < length; ++i) {
        UART_DATA = bytes[i];
    }
}

void edgeq_port_timer_start(void) {
    TIMER_CONTROL = 1;
}

void edgeq_port_timer_stop(void) {
    TIMER_CONTROL = 0;
}

uint64_t edgeq_port_ticks(void) {
    const uint32_t low = TIMER_LOW;
    return (uint64_t)TIMER_HIGH << 32 | low;
}

void edgeq_port_info(edgeq_port_info_t *info) {
    info->timer_kind = EDGEQ_TIMER_INSTRUCTIONS;
    info->timer_resolution = 1;
    info->progress_ticks = 20000000u;
    info->capabilities = EDGEQ_CAN_I2C;
    edgeq_cortex_m_info(info);
}

void edgeq_port_reset(void) {
    POWER = 1;
    for (;;) {
    }
}
