/* UART0 on GP0 (out) and GP1 (in), where a serial adapter or debug probe is connected. */
#include "rp2.h"
#include "serial.h"

#define UART_DR                EDGEQ_REGISTER(UART0 + 0x00u)
#define UART_FR                EDGEQ_REGISTER(UART0 + 0x18u)
#define UART_IBRD              EDGEQ_REGISTER(UART0 + 0x24u)
#define UART_FBRD              EDGEQ_REGISTER(UART0 + 0x28u)
#define UART_LCR               EDGEQ_REGISTER(UART0 + 0x2Cu)
#define UART_CR                EDGEQ_REGISTER(UART0 + 0x30u)
#define FR_BUSY                (1u << 3)
#define FR_RECEIVE_EMPTY       (1u << 4)
#define FR_TRANSMIT_FULL       (1u << 5)
#define LCR_8_BITS_FIFO        (3u << 5 | 1u << 4)
#define CR_ON_TRANSMIT_RECEIVE (1u << 0 | 1u << 8 | 1u << 9)
#define PAD_INPUT_PULL_UP      0x5Au
#define FUNCTION_UART          2u

void serial_start(void) {
    rp2_out_of_reset(RESET_IO_BANK0 | RESET_PADS_BANK0 | RESET_UART0);
    for (uint32_t pin = 0; pin < 2; ++pin) {
        EDGEQ_REGISTER(PADS_BANK0 + 4u + 4u * pin) = PAD_INPUT_PULL_UP;
        EDGEQ_REGISTER(IO_BANK0 + 4u + 8u * pin) = FUNCTION_UART;
    }
    /* in 1/64 of the divider, rounded */
    const uint32_t divider = (4u * EDGEQ_CORE_HZ + EDGEQ_BAUD / 2u) / EDGEQ_BAUD;
    UART_IBRD = divider >> 6;
    UART_FBRD = divider & 63u;
    UART_LCR = LCR_8_BITS_FIFO;
    UART_CR = CR_ON_TRANSMIT_RECEIVE;
}

void serial_drain(void) {
    while ((UART_FR & FR_BUSY) != 0) {
    }
}

int32_t edgeq_port_read(void) {
    return (UART_FR & FR_RECEIVE_EMPTY) == 0 ? (int32_t)(UART_DR & 0xFFu) : -1;
}

void edgeq_port_write(const uint8_t *bytes, uint32_t length) {
    for (uint32_t i = 0; i < length; ++i) {
        while ((UART_FR & FR_TRANSMIT_FULL) != 0) {
        }
        UART_DR = bytes[i];
    }
}
