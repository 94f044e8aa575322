/* The line to the host: uart.c or usb.c, which define edgeq_port_read and edgeq_port_write too. */
#ifndef EDGEQ_NRF52_SERIAL_H
#define EDGEQ_NRF52_SERIAL_H

/* Wants the crystal oscillator to run. */
void serial_start(void);

#endif
