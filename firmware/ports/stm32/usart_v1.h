/* The USART of STM32F1, F2, F4 and L1: status and data registers. */
#ifndef EDGEQ_STM32_USART_V1_H
#define EDGEQ_STM32_USART_V1_H

#include "cortex_m.h"

#define USART_SR           0x00u
#define USART_DR           0x04u
#define USART_BRR          0x08u
#define USART_CR1          0x0Cu
#define USART_SR_ORE       (1u << 3)
#define USART_SR_RXNE      (1u << 5)
#define USART_SR_TC        (1u << 6)
#define USART_SR_TXE       (1u << 7)
#define USART_CR1_RE_TE_UE (1u << 2 | 1u << 3 | 1u << 13)

static inline void usart_start(uint32_t usart, uint32_t divider) {
    EDGEQ_REGISTER(usart + USART_BRR) = divider;
    EDGEQ_REGISTER(usart + USART_CR1) = USART_CR1_RE_TE_UE;
}

/* Reading status, then data, ends an overrun, too; where it left no byte, what the data register says is an old one. */
static inline int32_t usart_read(uint32_t usart) {
    const uint32_t status = EDGEQ_REGISTER(usart + USART_SR);
    if ((status & (USART_SR_RXNE | USART_SR_ORE)) == 0) {
        return -1;
    }
    const uint32_t byte = EDGEQ_REGISTER(usart + USART_DR) & 0xFFu;
    return (status & USART_SR_RXNE) != 0 ? (int32_t)byte : -1;
}

static inline void usart_write(uint32_t usart, const uint8_t *bytes, uint32_t length) {
    for (uint32_t i = 0; i < length; ++i) {
        while ((EDGEQ_REGISTER(usart + USART_SR) & USART_SR_TXE) == 0) {
        }
        EDGEQ_REGISTER(usart + USART_DR) = bytes[i];
    }
}

static inline void usart_drain(uint32_t usart) {
    while ((EDGEQ_REGISTER(usart + USART_SR) & USART_SR_TC) == 0) {
    }
}

#endif
