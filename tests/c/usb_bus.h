/* A USB device controller in memory, with whatever drives it: usb_ideal.c or usb_rp2040/bus.c. */
#ifndef USB_BUS_H
#define USB_BUS_H

#include "line.h"

#define ENDPOINTS 3

enum { ACK = 'A', DATA = 'D', NAK = 'N', STALLED = 'S', SILENT = 'T' };

void must(bool condition);

void bus_start(void);
void bus_reset(void);
void bus_setup(const uint8_t *bytes);
uint8_t bus_in(uint8_t number, uint8_t *packet, uint32_t *length); /* a token; the device's answer */
uint8_t bus_out(uint8_t number, const uint8_t *bytes, uint32_t length);
uint8_t bus_address(void);

#endif
