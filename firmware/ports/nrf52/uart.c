/* The UART on the pins TX (P1.03) and RX (P1.10) of Arduino Nano 33 BLE: a serial adapter is needed there. */
#include "uart.h"

#include "serial.h"

#define PORT_1       32u
#define TRANSMIT_PIN (PORT_1 + 3u)
#define RECEIVE_PIN  (PORT_1 + 10u)

void serial_start(void) {
    uart_start(TRANSMIT_PIN, RECEIVE_PIN, EDGEQ_BAUD);
}

int32_t edgeq_port_read(void) {
    return uart_read();
}

void edgeq_port_write(const uint8_t *bytes, uint32_t length) {
    uart_write(bytes, length);
}
