/*
 * nRF52840 at 64 MHz with the crystal for the UART's sake, instruction cache on, cycle counter. UART on the pins TX
 * (P1.03) and RX (P1.10) of Arduino Nano 33 BLE: a serial adapter is needed there, the USB socket belongs to the boot
 * loader. I2C on A4 (SDA, P0.31) and A5 (SCL, P0.02).
 *
 * The UART and I2C drivers run on QEMU's nRF51 (port nrf51); the rest is only compiled and linked, has never run on
 * hardware, and is not checked against the nRF52840 Product Specification.
 */
#include "cycles.h"
#include "twi.h"
#include "uart.h"

#define CLOCK_HFCLKSTART   EDGEQ_REGISTER(0x40000000u)
#define CLOCK_HFCLKSTARTED EDGEQ_REGISTER(0x40000100u)
#define NVMC_ICACHECNF     EDGEQ_REGISTER(0x4001E540u)
#define PORT_1             32u
#define TRANSMIT_PIN       (PORT_1 + 3u)
#define RECEIVE_PIN        (PORT_1 + 10u)
#define CLOCK_PIN          2u
#define DATA_PIN           31u

void edgeq_port_start(void) {
    CLOCK_HFCLKSTART = 1;
    while (CLOCK_HFCLKSTARTED == 0) {
    }
    NVMC_ICACHECNF = 1;
    uart_start(TRANSMIT_PIN, RECEIVE_PIN, EDGEQ_BAUD);
    twi_start(CLOCK_PIN, DATA_PIN);
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

void edgeq_port_info(edgeq_port_info_t *info) {
    edgeq_cycles_info(info, EDGEQ_CORE_HZ);
    info->capabilities = EDGEQ_INSTRUCTION_CACHE_ON | EDGEQ_CAN_I2C;
    edgeq_cortex_m_info(info);
}

void edgeq_port_reset(void) {
    edgeq_cortex_m_reset();
}
