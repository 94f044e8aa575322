/* The line to the host: uart.c or usb.c, which define edgeq_port_read and edgeq_port_write too. */
#ifndef EDGEQ_RP2_SERIAL_H
#define EDGEQ_RP2_SERIAL_H

/* Wants the clocks to run. */
void serial_start(void);

/* Waits until all has left. */
void serial_drain(void);

#endif
