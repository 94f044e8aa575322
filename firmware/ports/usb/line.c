#include "line.h"

#include "agent.h"

#define PATIENCE 1000000u /* turns of a loop: a second or two in which the host takes no packet */

void edgeq_port_serve(void) {
    edgeq_usb_poll();
}

int32_t edgeq_port_read(void) {
    const int32_t byte = edgeq_cdc_read(&edgeq_usb_line);
    if (byte >= 0) {
        return byte;
    }
    edgeq_usb_poll();
    return edgeq_cdc_read(&edgeq_usb_line);
}

/* Nothing is under way afterwards. What the host does not take in time is dropped: its checksum tells it. */
void edgeq_port_write(const uint8_t *bytes, uint32_t length) {
    uint32_t turn = 0;
    while ((length != 0 || !edgeq_cdc_drained(&edgeq_usb_line)) && turn++ < PATIENCE) {
        const uint32_t taken = edgeq_cdc_write(&edgeq_usb_line, bytes, length);
        bytes += taken;
        length -= taken;
        if (taken != 0) {
            turn = 0;
        }
        edgeq_usb_poll();
    }
    edgeq_cdc_drop(&edgeq_usb_line);
}
