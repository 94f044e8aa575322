/*
 * I2C master at 100 kHz by the TWI (without DMA) that nRF51 and nRF52 share: nRF51 Series Reference Manual 28,
 * nRF52840 Product Specification 6.29. EdgeQ's virtual board has the same.
 */
#ifndef EDGEQ_NRF_TWI_H
#define EDGEQ_NRF_TWI_H

#include <stdbool.h>

#include "cortex_m.h"

#define TWI            0x40003000u
#define TWI_STARTRX    EDGEQ_REGISTER(TWI + 0x000u)
#define TWI_STARTTX    EDGEQ_REGISTER(TWI + 0x008u)
#define TWI_STOP       EDGEQ_REGISTER(TWI + 0x014u)
#define TWI_RESUME     EDGEQ_REGISTER(TWI + 0x020u)
#define TWI_STOPPED    EDGEQ_REGISTER(TWI + 0x104u)
#define TWI_RXDREADY   EDGEQ_REGISTER(TWI + 0x108u)
#define TWI_TXDSENT    EDGEQ_REGISTER(TWI + 0x11Cu)
#define TWI_ERROR      EDGEQ_REGISTER(TWI + 0x124u)
#define TWI_SHORTS     EDGEQ_REGISTER(TWI + 0x200u)
#define TWI_ERRORSRC   EDGEQ_REGISTER(TWI + 0x4C4u) /* writing ones clears */
#define TWI_ENABLE     EDGEQ_REGISTER(TWI + 0x500u)
#define TWI_PSELSCL    EDGEQ_REGISTER(TWI + 0x508u)
#define TWI_PSELSDA    EDGEQ_REGISTER(TWI + 0x50Cu)
#define TWI_RXD        EDGEQ_REGISTER(TWI + 0x518u)
#define TWI_TXD        EDGEQ_REGISTER(TWI + 0x51Cu)
#define TWI_FREQUENCY  EDGEQ_REGISTER(TWI + 0x524u)
#define TWI_ADDRESS    EDGEQ_REGISTER(TWI + 0x588u)
#define TWI_ENABLED    5u
#define TWI_100_KHZ    0x01980000u
#define TWI_BB_SUSPEND 1u /* shortcuts at a byte's boundary */
#define TWI_BB_STOP    2u
#define TWI_ALL_ERRORS 7u
#define TWI_PATIENCE   200000u /* turns of a loop: far longer than a byte and its stretching take */
#define GPIO_PIN(n)    EDGEQ_REGISTER(0x50000700u + 0x300u * ((n) / 32u) + 4u * ((n) % 32u))
#define PIN_OPEN_DRAIN (6u << 8 | 3u << 2) /* input, pull-up, drives only low */

static inline void twi_start(uint32_t clock_pin, uint32_t data_pin) {
    GPIO_PIN(clock_pin) = PIN_OPEN_DRAIN;
    GPIO_PIN(data_pin) = PIN_OPEN_DRAIN;
    TWI_PSELSCL = clock_pin;
    TWI_PSELSDA = data_pin;
    TWI_FREQUENCY = TWI_100_KHZ;
    TWI_ENABLE = TWI_ENABLED;
}

/* Waits for an event or an error. */
static inline uint32_t twi_wait(volatile uint32_t *event) {
    for (uint32_t turn = 0; turn < TWI_PATIENCE; ++turn) {
        if (TWI_ERROR != 0) {
            return EDGEQ_I2C_NO_ANSWER;
        }
        if (*event != 0) {
            *event = 0;
            return EDGEQ_I2C_OK;
        }
    }
    return EDGEQ_I2C_STUCK;
}

static inline uint32_t twi_send(const uint8_t *out, uint32_t bytes) {
    uint32_t failure = EDGEQ_I2C_OK;
    TWI_SHORTS = 0;
    TWI_TXDSENT = 0;
    TWI_STARTTX = 1;
    for (uint32_t i = 0; i < bytes && failure == EDGEQ_I2C_OK; ++i) {
        TWI_TXD = out[i];
        failure = twi_wait(&TWI_TXDSENT);
    }
    return failure;
}

/* The last byte is not acknowledged: there the shortcut stops instead of suspending. */
static inline uint32_t twi_receive(uint8_t *in, uint32_t bytes) {
    TWI_SHORTS = bytes == 1 ? TWI_BB_STOP : TWI_BB_SUSPEND;
    TWI_RXDREADY = 0;
    TWI_STARTRX = 1;
    for (uint32_t i = 0; i < bytes; ++i) {
        const uint32_t failure = twi_wait(&TWI_RXDREADY);
        if (failure != EDGEQ_I2C_OK) {
            return failure;
        }
        in[i] = (uint8_t)TWI_RXD;
        if (i + 2 == bytes) {
            TWI_SHORTS = TWI_BB_STOP;
        }
        if (i + 1 != bytes) {
            TWI_RESUME = 1;
        }
    }
    return EDGEQ_I2C_OK;
}

/* Sends, then receives after a repeated start. */
static inline uint32_t twi_transfer(uint8_t address, const uint8_t *out, uint32_t out_bytes, uint8_t *in,
                                    uint32_t in_bytes) {
    uint32_t failure = EDGEQ_I2C_OK;
    TWI_ERROR = 0;
    TWI_ERRORSRC = TWI_ALL_ERRORS;
    TWI_STOPPED = 0;
    TWI_ADDRESS = address;
    if (out_bytes != 0) {
        failure = twi_send(out, out_bytes);
    }
    if (failure == EDGEQ_I2C_OK && in_bytes != 0) {
        failure = twi_receive(in, in_bytes);
    }
    if (failure != EDGEQ_I2C_OK || in_bytes == 0) {
        TWI_SHORTS = 0;
        TWI_ERROR = 0;
        TWI_STOP = 1;
    }
    const uint32_t stopped = twi_wait(&TWI_STOPPED);
    return failure != EDGEQ_I2C_OK ? failure : stopped;
}

#endif
