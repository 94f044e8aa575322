/*
 * BBC micro:bit (nRF51822, Cortex-M0) as QEMU has it: UART to the interface chip, TIMER0 at 16 MHz, I2C to the board's
 * own sensors. Run with `-icount shift=6`: an instruction takes 64 ns, which is 1.024 ticks.
 */
#include "twi.h"
#include "uart.h"

#define TIMER0          0x40008000u
#define TIMER_START     EDGEQ_REGISTER(TIMER0 + 0x000u)
#define TIMER_STOP      EDGEQ_REGISTER(TIMER0 + 0x004u)
#define TIMER_CLEAR     EDGEQ_REGISTER(TIMER0 + 0x00Cu)
#define TIMER_CAPTURE   EDGEQ_REGISTER(TIMER0 + 0x040u)
#define TIMER_BITMODE   EDGEQ_REGISTER(TIMER0 + 0x508u)
#define TIMER_PRESCALER EDGEQ_REGISTER(TIMER0 + 0x510u)
#define TIMER_CC        EDGEQ_REGISTER(TIMER0 + 0x540u)
#define TIMER_COMPARE   EDGEQ_REGISTER(TIMER0 + 0x140u)
#define BITMODE_32      3u
#define WAKING_TICKS    16000u
#define TRANSMIT_PIN    24u
#define RECEIVE_PIN     25u
#define CLOCK_PIN       0u
#define DATA_PIN        30u

static uint32_t last_value;
static uint64_t counted;

void edgeq_port_start(void) {
    uart_start(TRANSMIT_PIN, RECEIVE_PIN, 115200u);
    twi_start(CLOCK_PIN, DATA_PIN);
    /* QEMU asks whether the UART receives only when something wakes it, which a timer does that ends. */
    TIMER_CC = WAKING_TICKS;
    edgeq_port_timer_start();
    while (TIMER_COMPARE == 0) {
    }
    edgeq_port_timer_stop();
    TIMER_COMPARE = 0;
}

uint32_t edgeq_port_i2c(uint8_t address, const uint8_t *out, uint32_t out_bytes, uint8_t *in, uint32_t in_bytes) {
    return twi_transfer(address, out, out_bytes, in, in_bytes);
}

int32_t edgeq_port_read(void) {
    return uart_read();
}

void edgeq_port_write(const uint8_t *bytes, uint32_t length) {
    uart_write(bytes, length);
}

void edgeq_port_timer_start(void) {
    TIMER_STOP = 1;
    TIMER_CLEAR = 1;
    TIMER_BITMODE = BITMODE_32;
    TIMER_PRESCALER = 0;
    TIMER_START = 1;
    last_value = 0;
    counted = 0;
}

void edgeq_port_timer_stop(void) {
    TIMER_STOP = 1;
}

uint64_t edgeq_port_ticks(void) {
    TIMER_CAPTURE = 1;
    const uint32_t value = TIMER_CC;
    counted += value - last_value;
    last_value = value;
    return counted * 125u / 128u;
}

void edgeq_port_info(edgeq_port_info_t *info) {
    info->timer_kind = EDGEQ_TIMER_INSTRUCTIONS;
    info->timer_resolution = 1;
    info->progress_ticks = 4000000u;
    info->capabilities = EDGEQ_CAN_I2C;
    edgeq_cortex_m_info(info);
}

void edgeq_port_reset(void) {
    edgeq_cortex_m_reset();
}
