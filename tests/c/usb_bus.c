/*
 * The agent above firmware/ports/usb/cdc.c and a controller in memory (usb_bus.h). Standard input brings what a host
 * puts on the bus and what the board does; each line of work is answered on standard output: one byte, the count of the
 * bytes that follow (16 bits), those. A driver's contract that is broken aborts.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent.h"
#include "usb_bus.h"

static edgeq_agent_t agent;
static uint32_t meanwhile; /* orders that come in mid-run */

edgeq_kept_t edgeq_kept;

void must(bool condition) {
    if (!condition) {
        abort();
    }
}

/* ---- the agent's port ---- */

int32_t edgeq_port_read(void) {
    return edgeq_cdc_read(&edgeq_usb_line);
}

void edgeq_port_write(const uint8_t *bytes, uint32_t length) {
    must(edgeq_cdc_write(&edgeq_usb_line, bytes, length) == length);
}

void edgeq_port_info(edgeq_port_info_t *info) {
    (void)info;
}

void edgeq_port_timer_start(void) {
}

void edgeq_port_timer_stop(void) {
}

uint64_t edgeq_port_ticks(void) {
    return 0;
}

void edgeq_port_reset(void) {
    abort();
}

/* ---- the host's side ---- */

static void answer(uint8_t what, const uint8_t *bytes, uint32_t length) {
    const uint8_t head[3] = {what, (uint8_t)(length & 0xFFu), (uint8_t)(length >> 8)};
    must(fwrite(head, 1, sizeof head, stdout) == sizeof head && fwrite(bytes, 1, length, stdout) == length);
    fflush(stdout);
}

static void application_reads(uint32_t most) {
    static uint8_t bytes[EDGEQ_CDC_RING_BYTES];
    uint32_t count = 0;
    for (int32_t byte; count < most && count < sizeof bytes && (byte = edgeq_cdc_read(&edgeq_usb_line)) >= 0; ++count) {
        bytes[count] = (uint8_t)byte;
    }
    answer(DATA, bytes, count);
}

static void application_writes(const uint8_t *bytes, uint32_t length) {
    const uint32_t taken = edgeq_cdc_write(&edgeq_usb_line, bytes, length);
    const uint8_t count[2] = {(uint8_t)(taken & 0xFFu), (uint8_t)(taken >> 8)};
    answer(ACK, count, sizeof count);
}

static void tell(void) {
    const uint8_t facts[] = {bus_address(), edgeq_usb_line.configured, edgeq_usb_line.listening,
                             edgeq_cdc_drained(&edgeq_usb_line), edgeq_usb_line.left_slow};
    answer(DATA, facts, sizeof facts);
}

/* One order of standard input; false at its end. */
static bool obey(void) {
    static uint8_t head[4], bytes[0x10000]; /* what, endpoint, count */
    if (fread(head, 1, sizeof head, stdin) != sizeof head) {
        return false;
    }
    const uint8_t number = head[1];
    const uint32_t length = head[2] | (uint32_t)head[3] << 8;
    const bool has_bytes = strchr("SOw", head[0]) != 0;
    must(!has_bytes || fread(bytes, 1, length, stdin) == length);
    must(number < ENDPOINTS);
    uint8_t packet[EDGEQ_USB_PACKET_BYTES], what;
    uint32_t packet_bytes = 0;
    switch (head[0]) {
    case 'R':
        bus_reset();
        answer(ACK, bytes, 0);
        break;
    case 'S':
        bus_setup(bytes);
        answer(ACK, bytes, 0);
        break;
    case 'I':
        what = bus_in(number, packet, &packet_bytes);
        answer(what, packet, packet_bytes);
        break;
    case 'O':
        must(length <= EDGEQ_USB_PACKET_BYTES);
        answer(bus_out(number, bytes, length), bytes, 0);
        break;
    case 'r':
        application_reads(length);
        break;
    case 'w':
        application_writes(bytes, length);
        break;
    case 'a': /* with a count: so many orders are for the moment behind the first layer of a run */
        meanwhile = length;
        edgeq_agent_poll(&agent);
        answer(ACK, bytes, 0);
        break;
    default:
        tell();
    }
    return true;
}

void edgeq_port_serve(void) {
    while (meanwhile != 0) {
        --meanwhile;
        must(obey());
    }
}

int main(void) {
    bus_start();
    edgeq_agent_start(&agent, &edgeq_model);
    while (obey()) {
    }
    return 0;
}
