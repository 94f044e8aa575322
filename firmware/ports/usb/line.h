/* The agent's line over USB: line.c makes of a chip's driver and cdc.c what the agent wants of a port. */
#ifndef EDGEQ_USB_LINE_H
#define EDGEQ_USB_LINE_H

#include "cdc.h"

/* The chip's driver defines both; polling hands on what has happened on the bus since. */
extern edgeq_cdc_t edgeq_usb_line;
void edgeq_usb_poll(void);

#endif
