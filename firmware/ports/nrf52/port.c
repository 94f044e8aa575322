/*
 * nRF52840 at 64 MHz with the crystal for the sake of UART and USB, instruction cache on, cycle counter. The line to
 * the host is uart.c or usb.c, as the board's profile says. I2C on A4 (SDA, P0.31) and A5 (SCL, P0.02) of Arduino Nano
 * 33 BLE.
 *
 * The UART and I2C drivers run on QEMU's nRF51 (port nrf51); the rest is only compiled and linked, has never run on
 * hardware, and is not checked against the nRF52840 Product Specification.
 */
#include "cycles.h"
#include "serial.h"
#include "twi.h"

#define CLOCK_HFCLKSTART   EDGEQ_REGISTER(0x40000000u)
#define CLOCK_HFCLKSTARTED EDGEQ_REGISTER(0x40000100u)
#define NVMC_ICACHECNF     EDGEQ_REGISTER(0x4001E540u)
#define CLOCK_PIN          2u
#define DATA_PIN           31u

void edgeq_port_start(void) {
    CLOCK_HFCLKSTART = 1;
    while (CLOCK_HFCLKSTARTED == 0) {
    }
    NVMC_ICACHECNF = 1;
    serial_start();
    twi_start(CLOCK_PIN, DATA_PIN);
}

uint32_t edgeq_port_i2c(uint8_t address, const uint8_t *out, uint32_t out_bytes, uint8_t *in, uint32_t in_bytes) {
    return twi_transfer(address, out, out_bytes, in, in_bytes);
}

void edgeq_port_info(edgeq_port_info_t *info) {
    edgeq_cycles_info(info, EDGEQ_CORE_HZ);
    info->capabilities = EDGEQ_INSTRUCTION_CACHE_ON | EDGEQ_CAN_I2C;
    edgeq_cortex_m_info(info);
}

void edgeq_port_reset(void) {
    edgeq_cortex_m_reset();
}
