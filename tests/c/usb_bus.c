/*
 * A USB device controller in memory under firmware/ports/usb/cdc.c, and the agent above it. Standard input brings what
 * a host puts on the bus and what the board does; each line of work is answered on standard output: one byte, the
 * count of the bytes that follow (16 bits), those. A driver's contract that is broken aborts.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent.h"
#include "cdc.h"

#define ENDPOINTS 3

enum { ACK = 'A', DATA = 'D', NAK = 'N', STALLED = 'S', SILENT = 'T' };

typedef struct {
    const uint8_t *packet;
    uint8_t bytes[EDGEQ_USB_PACKET_BYTES];
    uint32_t length;
    bool full, stalled;
} endpoint_t;

static edgeq_cdc_t cdc;
static edgeq_agent_t agent;
static endpoint_t in[ENDPOINTS], out[ENDPOINTS];
static bool opened, control_stalled, control_to_host, expecting, status_allowed;
static uint8_t address, next_address;
static uint32_t meanwhile; /* orders that come in mid-run */

edgeq_kept_t edgeq_kept;

static void must(bool condition) {
    if (!condition) {
        abort();
    }
}

static void set_address(uint8_t value) {
    next_address = value;
}

static void open_endpoints(bool open) {
    opened = open;
    memset(in + 1, 0, sizeof in - sizeof in[0]);
    memset(out + 1, 0, sizeof out - sizeof out[0]);
}

static endpoint_t *of(uint8_t endpoint) {
    must((endpoint & 0x7Fu) < ENDPOINTS);
    return (endpoint & 0x80u) != 0 ? &in[endpoint & 0x7Fu] : &out[endpoint];
}

static void stall(uint8_t endpoint) {
    if (endpoint == 0) {
        control_stalled = true;
    } else {
        must(opened);
        of(endpoint)->stalled = true;
    }
}

static void unstall(uint8_t endpoint) {
    must(opened && endpoint != 0);
    of(endpoint)->stalled = false;
    if ((endpoint & 0x80u) == 0) {
        of(endpoint)->full = false;
    }
}

static void write_packet(uint8_t endpoint, const uint8_t *packet, uint32_t bytes) {
    endpoint_t *place = of(endpoint == 0 ? 0x80u : endpoint);
    must(bytes <= EDGEQ_USB_PACKET_BYTES && !place->full && (endpoint == 0 || opened));
    place->packet = packet;
    place->length = bytes;
    place->full = true;
}

static uint32_t read_packet(uint8_t endpoint, uint8_t *packet) {
    endpoint_t *place = of(endpoint);
    must(place->full);
    memcpy(packet, place->bytes, place->length);
    place->full = false;
    return place->length;
}

static void expect(void) {
    expecting = true;
}

static void status(void) {
    must(!control_stalled);
    status_allowed = true;
}

static const edgeq_usb_t usb = {set_address, open_endpoints, stall, unstall, write_packet, read_packet, expect, status};

/* ---- the agent's port ---- */

int32_t edgeq_port_read(void) {
    return edgeq_cdc_read(&cdc);
}

void edgeq_port_write(const uint8_t *bytes, uint32_t length) {
    must(edgeq_cdc_write(&cdc, bytes, length) == length);
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

static void control_in(void) {
    uint8_t packet[EDGEQ_USB_PACKET_BYTES];
    if (control_stalled) {
        answer(STALLED, packet, 0);
    } else if (in[0].full) {
        const uint32_t length = in[0].length;
        memcpy(packet, in[0].packet, length);
        in[0].full = false;
        edgeq_cdc_sent(&cdc, 0);
        answer(DATA, packet, length);
    } else if (status_allowed && !control_to_host) {
        status_allowed = false;
        address = next_address;
        answer(DATA, packet, 0);
    } else {
        answer(NAK, packet, 0);
    }
}

static void control_out(const uint8_t *bytes, uint32_t length) {
    if (control_stalled) {
        answer(STALLED, bytes, 0);
    } else if (expecting) {
        expecting = false;
        memcpy(out[0].bytes, bytes, length);
        out[0].length = length;
        out[0].full = true;
        edgeq_cdc_received(&cdc, 0);
        answer(ACK, bytes, 0);
    } else if (status_allowed && control_to_host && length == 0) {
        status_allowed = false;
        answer(ACK, bytes, 0);
    } else {
        answer(NAK, bytes, 0);
    }
}

static void data_in(uint8_t number) {
    endpoint_t *place = &in[number];
    uint8_t packet[EDGEQ_USB_PACKET_BYTES];
    if (!opened || place->stalled || !place->full) {
        answer(!opened ? SILENT : place->stalled ? STALLED : NAK, packet, 0);
        return;
    }
    const uint32_t length = place->length;
    memcpy(packet, place->packet, length);
    place->full = false;
    edgeq_cdc_sent(&cdc, number | 0x80u);
    answer(DATA, packet, length);
}

static void data_out(uint8_t number, const uint8_t *bytes, uint32_t length) {
    endpoint_t *place = &out[number];
    if (!opened || place->stalled || place->full) {
        answer(!opened ? SILENT : place->stalled ? STALLED : NAK, bytes, 0);
        return;
    }
    memcpy(place->bytes, bytes, length);
    place->length = length;
    place->full = true;
    edgeq_cdc_received(&cdc, number);
    answer(ACK, bytes, 0);
}

static void setup(const uint8_t *bytes) {
    in[0].full = out[0].full = false;
    control_stalled = expecting = status_allowed = false;
    control_to_host = (bytes[0] & 0x80u) != 0;
    next_address = address;
    edgeq_cdc_setup(&cdc, bytes);
    answer(ACK, bytes, 0);
}

static void bus_reset(void) {
    in[0].full = out[0].full = false;
    control_stalled = expecting = status_allowed = false;
    address = next_address = 0;
    open_endpoints(false);
    edgeq_cdc_reset(&cdc);
    answer(ACK, &address, 0);
}

static void application_reads(uint32_t most) {
    static uint8_t bytes[EDGEQ_CDC_RING_BYTES];
    uint32_t count = 0;
    for (int32_t byte; count < most && count < sizeof bytes && (byte = edgeq_cdc_read(&cdc)) >= 0; ++count) {
        bytes[count] = (uint8_t)byte;
    }
    answer(DATA, bytes, count);
}

static void application_writes(const uint8_t *bytes, uint32_t length) {
    const uint32_t taken = edgeq_cdc_write(&cdc, bytes, length);
    const uint8_t count[2] = {(uint8_t)(taken & 0xFFu), (uint8_t)(taken >> 8)};
    answer(ACK, count, sizeof count);
}

static void tell(void) {
    const uint8_t facts[] = {address, cdc.configured, cdc.listening, edgeq_cdc_drained(&cdc), cdc.left_slow};
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
    switch (head[0]) {
    case 'R':
        bus_reset();
        break;
    case 'S':
        setup(bytes);
        break;
    case 'I':
        if (number == 0) {
            control_in();
        } else {
            data_in(number);
        }
        break;
    case 'O':
        must(length <= EDGEQ_USB_PACKET_BYTES);
        if (number == 0) {
            control_out(bytes, length);
        } else {
            data_out(number, bytes, length);
        }
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
    const edgeq_cdc_identity_t identity = {0x2341, 0x805A, "0123456789ABCDEF0123456789ABCDE"};
    edgeq_cdc_start(&cdc, &usb, &identity);
    edgeq_agent_start(&agent, &edgeq_model);
    while (obey()) {
    }
    return 0;
}
