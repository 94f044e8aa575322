/* A controller as ../../firmware/ports/usb/cdc.h wants it: what it does not promise aborts. */
#include <string.h>

#include "usb_bus.h"

typedef struct {
    const uint8_t *packet;
    uint8_t bytes[EDGEQ_USB_PACKET_BYTES];
    uint32_t length;
    bool full, stalled;
} endpoint_t;

edgeq_cdc_t edgeq_usb_line;
static endpoint_t in[ENDPOINTS], out[ENDPOINTS];
static bool opened, control_stalled, control_to_host, expecting, status_allowed;
static uint8_t address, next_address;

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

static uint8_t control_in(uint8_t *packet, uint32_t *length) {
    if (control_stalled) {
        return STALLED;
    }
    if (in[0].full) {
        *length = in[0].length;
        memcpy(packet, in[0].packet, *length);
        in[0].full = false;
        edgeq_cdc_sent(&edgeq_usb_line, 0);
        return DATA;
    }
    if (status_allowed && !control_to_host) {
        status_allowed = false;
        address = next_address;
        return DATA;
    }
    return NAK;
}

static uint8_t control_out(const uint8_t *bytes, uint32_t length) {
    if (control_stalled) {
        return STALLED;
    }
    if (expecting) {
        expecting = false;
        memcpy(out[0].bytes, bytes, length);
        out[0].length = length;
        out[0].full = true;
        edgeq_cdc_received(&edgeq_usb_line, 0);
        return ACK;
    }
    if (status_allowed && control_to_host && length == 0) {
        status_allowed = false;
        return ACK;
    }
    return NAK;
}

uint8_t bus_in(uint8_t number, uint8_t *packet, uint32_t *length) {
    endpoint_t *place = &in[number];
    if (number == 0) {
        return control_in(packet, length);
    }
    if (!opened || place->stalled || !place->full) {
        return !opened ? SILENT : place->stalled ? STALLED : NAK;
    }
    *length = place->length;
    memcpy(packet, place->packet, *length);
    place->full = false;
    edgeq_cdc_sent(&edgeq_usb_line, number | 0x80u);
    return DATA;
}

uint8_t bus_out(uint8_t number, const uint8_t *bytes, uint32_t length) {
    endpoint_t *place = &out[number];
    if (number == 0) {
        return control_out(bytes, length);
    }
    if (!opened || place->stalled || place->full) {
        return !opened ? SILENT : place->stalled ? STALLED : NAK;
    }
    memcpy(place->bytes, bytes, length);
    place->length = length;
    place->full = true;
    edgeq_cdc_received(&edgeq_usb_line, number);
    return ACK;
}

void bus_setup(const uint8_t *bytes) {
    in[0].full = out[0].full = false;
    control_stalled = expecting = status_allowed = false;
    control_to_host = (bytes[0] & 0x80u) != 0;
    next_address = address;
    edgeq_cdc_setup(&edgeq_usb_line, bytes);
}

void bus_reset(void) {
    in[0].full = out[0].full = false;
    control_stalled = expecting = status_allowed = false;
    address = next_address = 0;
    open_endpoints(false);
    edgeq_cdc_reset(&edgeq_usb_line);
}

uint8_t bus_address(void) {
    return address;
}

void bus_start(void) {
    const edgeq_cdc_identity_t identity = {0x2341, 0x805A, "0123456789ABCDEF0123456789ABCDE"};
    edgeq_cdc_start(&edgeq_usb_line, &usb, &identity);
}
