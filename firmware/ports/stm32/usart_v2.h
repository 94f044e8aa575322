/* The USART and LPUART of STM32L4, H7 and U5: status, receive and transmit registers. */
#ifndef EDGEQ_STM32_USART_V2_H
#define EDGEQ_STM32_USART_V2_H

#include "cortex_m.h"

#define USART_CR1          0x00u
#define USART_CR3          0x08u
#define USART_BRR          0x0Cu
#define USART_ISR          0x1Cu
#define USART_RDR          0x24u
#define USART_TDR          0x28u
#define USART_CR1_UE_RE_TE (1u << 0 | 1u << 2 | 1u << 3)
#define USART_CR3_OVRDIS   (1u << 12)
#define USART_ISR_RXNE     (1u << 5)
#define USART_ISR_TC       (1u << 6)
#define USART_ISR_TXE      (1u << 7)

static inline void usart_start(uint32_t usart, uint32_t divider) {
    EDGEQ_REGISTER(usart + USART_BRR) = divider;
    EDGEQ_REGISTER(usart + USART_CR3) = USART_CR3_OVRDIS;
    EDGEQ_REGISTER(usart + USART_CR1) = USART_CR1_UE_RE_TE;
}

static inline int32_t usart_read(uint32_t usart) {
    return (EDGEQ_REGISTER(usart + USART_ISR) & USART_ISR_RXNE) != 0
               ? (int32_t)(EDGEQ_REGISTER(usart + USART_RDR) & 0xFFu)
               : -1;
}

static inline void usart_write(uint32_t usart, const uint8_t *bytes, uint32_t length) {
    for (uint32_t i = 0; i < length; ++i) {
        while ((EDGEQ_REGISTER(usart + USART_ISR) & USART_ISR_TXE) == 0) {
        }
        EDGEQ_REGISTER(usart + USART_TDR) = bytes[i];
    }
}

static inline void usart_drain(uint32_t usart) {
    while ((EDGEQ_REGISTER(usart + USART_ISR) & USART_ISR_TC) == 0) {
    }
}

#endif
