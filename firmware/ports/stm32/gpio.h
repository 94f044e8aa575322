/* Pins of STM32 from F2 on. */
#ifndef EDGEQ_STM32_GPIO_H
#define EDGEQ_STM32_GPIO_H

#include "cortex_m.h"

/* Hands a pin to a peripheral (alternate function 0..15), fast slew rate, with a pull-up. */
static inline void gpio_alternate(uint32_t gpio, uint32_t pin, uint32_t function) {
    const uint32_t two = 2u * pin, four = 4u * (pin & 7u), bank = gpio + 0x20u + 4u * (pin >> 3);
    EDGEQ_REGISTER(bank) = (EDGEQ_REGISTER(bank) & ~(15u << four)) | function << four;
    EDGEQ_REGISTER(gpio + 0x08u) |= 3u << two;
    EDGEQ_REGISTER(gpio + 0x0Cu) = (EDGEQ_REGISTER(gpio + 0x0Cu) & ~(3u << two)) | 1u << two;
    EDGEQ_REGISTER(gpio + 0x00u) = (EDGEQ_REGISTER(gpio + 0x00u) & ~(3u << two)) | 2u << two;
}

static inline void wait_for(uint32_t address, uint32_t mask, uint32_t value) {
    while ((EDGEQ_REGISTER(address) & mask) != value) {
    }
}

#endif
