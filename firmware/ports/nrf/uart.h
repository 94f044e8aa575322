/* The UART (without DMA) that nRF51 and nRF52 share: six bytes of reception are buffered. */
#ifndef EDGEQ_NRF_UART_H
#define EDGEQ_NRF_UART_H

#include "cortex_m.h"

#define UART          0x40002000u
#define UART_STARTRX  EDGEQ_REGISTER(UART + 0x000u)
#define UART_STARTTX  EDGEQ_REGISTER(UART + 0x008u)
#define UART_RXDRDY   EDGEQ_REGISTER(UART + 0x108u)
#define UART_TXDRDY   EDGEQ_REGISTER(UART + 0x11Cu)
#define UART_ENABLE   EDGEQ_REGISTER(UART + 0x500u)
#define UART_PSELTXD  EDGEQ_REGISTER(UART + 0x50Cu)
#define UART_PSELRXD  EDGEQ_REGISTER(UART + 0x514u)
#define UART_RXD      EDGEQ_REGISTER(UART + 0x518u)
#define UART_TXD      EDGEQ_REGISTER(UART + 0x51Cu)
#define UART_BAUDRATE EDGEQ_REGISTER(UART + 0x524u)
#define UART_ENABLED  4u

/* The divider's steps are 16 MHz / 2^32; the low 12 bits do not count. */
#define UART_DIVIDER(baud) ((uint32_t)((((uint64_t)(baud) << 32) / 16000000u + 0x800u) & 0xFFFFF000u))

static inline void uart_start(uint32_t transmit_pin, uint32_t receive_pin, uint32_t baud) {
    UART_PSELTXD = transmit_pin;
    UART_PSELRXD = receive_pin;
    UART_BAUDRATE = UART_DIVIDER(baud);
    UART_ENABLE = UART_ENABLED;
    UART_STARTRX = 1;
    UART_STARTTX = 1;
}

static inline int32_t uart_read(void) {
    if (UART_RXDRDY == 0) {
        return -1;
    }
    UART_RXDRDY = 0;
    return (int32_t)(UART_RXD & 0xFFu);
}

/* Each byte is waited for, so that nothing is under way afterwards. */
static inline void uart_write(const uint8_t *bytes, uint32_t length) {
    for (uint32_t i = 0; i < length; ++i) {
        UART_TXDRDY = 0;
        UART_TXD = bytes[i];
        while (UART_TXDRDY == 0) {
        }
    }
}

#endif
