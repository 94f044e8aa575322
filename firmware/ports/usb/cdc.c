#include "cdc.h"

#include <string.h>

enum {
    GET_STATUS = 0,
    CLEAR_FEATURE = 1,
    SET_FEATURE = 3,
    SET_ADDRESS = 5,
    GET_DESCRIPTOR = 6,
    GET_CONFIGURATION = 8,
    SET_CONFIGURATION = 9,
    GET_INTERFACE = 10,
    SET_LINE_CODING = 0x20,
    GET_LINE_CODING = 0x21,
    SET_CONTROL_LINE_STATE = 0x22
};
enum { DEVICE = 1, CONFIGURATION = 2, STRING = 3 };

/* bmRequestType */
#define TO_HOST        0x80u
#define TO_DEVICE      0x00u
#define TO_INTERFACE   0x01u
#define TO_ENDPOINT    0x02u
#define OF_CLASS       0x21u
#define FROM_DEVICE    (TO_HOST | TO_DEVICE)
#define FROM_INTERFACE (TO_HOST | TO_INTERFACE)
#define FROM_ENDPOINT  (TO_HOST | TO_ENDPOINT)
#define FROM_CLASS     (TO_HOST | OF_CLASS)

#define INTERFACES          2u
#define ADDRESS_MAX         127u
#define TOUCH_BAUD          1200u
#define LANGUAGE            0x0409u /* English (United States) */
#define STRING_MAX          31u
#define LOW(half)           ((uint8_t)((half) & 0xFFu))
#define HIGH(half)          ((uint8_t)((half) >> 8))
#define PACKET              EDGEQ_USB_PACKET_BYTES
#define CONFIGURATION_BYTES 75u

typedef struct {
    uint8_t type, request;
    uint16_t value, index, length;
} setup_t;

/* Two interfaces, control and data, held together by an association. */
static const uint8_t configuration[CONFIGURATION_BYTES] = {
    9,
    CONFIGURATION,
    CONFIGURATION_BYTES,
    0,
    INTERFACES,
    1,
    0,
    0x80,
    50, /* powered by the bus: 100 mA */
    8,
    11,
    0,
    INTERFACES,
    2,
    2,
    0,
    0, /* association: class CDC, ACM */
    9,
    4,
    0,
    0,
    1,
    2,
    2,
    0,
    0, /* interface 0: control, no AT commands */
    5,
    0x24,
    0x00,
    0x20,
    0x01, /* header: CDC 1.20 */
    5,
    0x24,
    0x01,
    0x00,
    1, /* call management: none */
    4,
    0x24,
    0x02,
    0x02, /* ACM: line coding and line state */
    5,
    0x24,
    0x06,
    0,
    1, /* union: 0 controls 1 */
    7,
    5,
    EDGEQ_CDC_NOTIFY,
    3,
    8,
    0,
    255, /* interrupt; nothing is ever sent there */
    9,
    4,
    1,
    0,
    2,
    10,
    0,
    0,
    0, /* interface 1: data */
    7,
    5,
    EDGEQ_CDC_OUT,
    2,
    PACKET,
    0,
    0, /* bulk */
    7,
    5,
    EDGEQ_CDC_IN,
    2,
    PACKET,
    0,
    0, /* bulk */
};

static uint32_t held(const edgeq_cdc_ring_t *ring) {
    return ring->head - ring->tail;
}

static uint32_t room(const edgeq_cdc_ring_t *ring) {
    return EDGEQ_CDC_RING_BYTES - held(ring);
}

static void put(edgeq_cdc_ring_t *ring, const uint8_t *bytes, uint32_t length) {
    for (uint32_t i = 0; i < length; ++i) {
        ring->bytes[ring->head++ % EDGEQ_CDC_RING_BYTES] = bytes[i];
    }
}

static uint32_t take(edgeq_cdc_ring_t *ring, uint8_t *bytes, uint32_t most) {
    const uint32_t length = held(ring) < most ? held(ring) : most;
    for (uint32_t i = 0; i < length; ++i) {
        bytes[i] = ring->bytes[ring->tail++ % EDGEQ_CDC_RING_BYTES];
    }
    return length;
}

/* ---- bulk data ---- */

static void send_more(edgeq_cdc_t *cdc) {
    if (!cdc->configured || cdc->halted_in || cdc->sending) {
        return;
    }
    const uint32_t bytes = take(&cdc->to_host, cdc->in, PACKET);
    if (bytes != 0 || cdc->owes_empty) {
        cdc->sending = true;
        cdc->owes_empty = bytes == PACKET;
        cdc->usb->write(EDGEQ_CDC_IN, cdc->in, bytes);
    }
}

/* Without room for a whole packet it stays in the endpoint, and the host's next one is not acknowledged. */
static void receive_more(edgeq_cdc_t *cdc) {
    if (cdc->waiting && room(&cdc->from_host) >= PACKET) {
        cdc->waiting = false;
        put(&cdc->from_host, cdc->out, cdc->usb->read(EDGEQ_CDC_OUT, cdc->out));
    }
}

/* ---- control transfers ---- */

static void stall(edgeq_cdc_t *cdc) {
    cdc->stage = EDGEQ_CDC_IDLE;
    cdc->usb->stall(0);
}

static void finish(edgeq_cdc_t *cdc) {
    cdc->stage = EDGEQ_CDC_IDLE;
    cdc->usb->status();
}

static void reply_more(edgeq_cdc_t *cdc) {
    const uint32_t left = cdc->reply_bytes - cdc->reply_sent, bytes = left < PACKET ? left : PACKET;
    if (bytes == 0 && !cdc->reply_ends_empty) {
        finish(cdc);
        return;
    }
    if (bytes < PACKET) {
        cdc->reply_ends_empty = false;
    }
    memcpy(cdc->control, cdc->reply + cdc->reply_sent, bytes);
    cdc->reply_sent += bytes;
    cdc->stage = EDGEQ_CDC_REPLIES;
    cdc->usb->write(0, cdc->control, bytes);
}

/* At most as many bytes as the host asks for; fewer in whole packets end in an empty one (USB 2.0, 5.5.3). */
static void reply(edgeq_cdc_t *cdc, const setup_t *setup, const uint8_t *bytes, uint32_t length) {
    memcpy(cdc->reply, bytes, length);
    cdc->reply_bytes = length < setup->length ? length : setup->length;
    cdc->reply_sent = 0;
    cdc->reply_ends_empty = length < setup->length && length % PACKET == 0;
    reply_more(cdc);
}

static void reply_string(edgeq_cdc_t *cdc, const setup_t *setup, const char *text) {
    uint8_t string[2 + 2 * STRING_MAX];
    uint32_t length = 2;
    for (uint32_t i = 0; text[i] != 0 && i < STRING_MAX; ++i) {
        string[length++] = (uint8_t)text[i];
        string[length++] = 0;
    }
    string[0] = (uint8_t)length;
    string[1] = STRING;
    reply(cdc, setup, string, length);
}

static void reply_device(edgeq_cdc_t *cdc, const setup_t *setup) {
    const edgeq_cdc_identity_t *who = &cdc->identity;
    /* USB 2.0; class 0xEF, 2, 1: interfaces belong together; release 1.00; strings 1, 2, 3; one configuration */
    const uint8_t device[18] = {18,
                                DEVICE,
                                0x00,
                                0x02,
                                0xEF,
                                0x02,
                                0x01,
                                PACKET,
                                LOW(who->vendor),
                                HIGH(who->vendor),
                                LOW(who->product),
                                HIGH(who->product),
                                0x00,
                                0x01,
                                1,
                                2,
                                3,
                                1};
    reply(cdc, setup, device, sizeof device);
}

static void get_descriptor(edgeq_cdc_t *cdc, const setup_t *setup) {
    static const uint8_t languages[4] = {4, STRING, LOW(LANGUAGE), HIGH(LANGUAGE)};
    switch (setup->value) {
    case DEVICE << 8:
        reply_device(cdc, setup);
        break;
    case CONFIGURATION << 8:
        reply(cdc, setup, configuration, sizeof configuration);
        break;
    case STRING << 8:
        reply(cdc, setup, languages, sizeof languages);
        break;
    case STRING << 8 | 1:
        reply_string(cdc, setup, "EdgeQ");
        break;
    case STRING << 8 | 2:
        reply_string(cdc, setup, "EdgeQ agent");
        break;
    case STRING << 8 | 3:
        reply_string(cdc, setup, cdc->identity.serial_number);
        break;
    default: /* the qualifier among them: there is no high speed */
        stall(cdc);
    }
}

static void forget_data(edgeq_cdc_t *cdc) {
    cdc->from_host.head = cdc->from_host.tail = 0;
    cdc->to_host.head = cdc->to_host.tail = 0;
    cdc->sending = cdc->owes_empty = cdc->waiting = false;
    cdc->halted_notify = cdc->halted_in = cdc->halted_out = false;
}

static void set_configuration(edgeq_cdc_t *cdc, const setup_t *setup) {
    if (setup->value > 1 || setup->index != 0 || setup->length != 0) {
        stall(cdc);
        return;
    }
    forget_data(cdc);
    cdc->configured = setup->value == 1;
    cdc->listening = cdc->listening && cdc->configured;
    cdc->usb->open(cdc->configured);
    finish(cdc);
}

/* Where an endpoint's halt is kept; 0: there is no such endpoint now. */
static bool *halt_of(edgeq_cdc_t *cdc, uint16_t endpoint) {
    if (!cdc->configured) {
        return 0;
    }
    switch (endpoint) {
    case EDGEQ_CDC_NOTIFY:
        return &cdc->halted_notify;
    case EDGEQ_CDC_IN:
        return &cdc->halted_in;
    case EDGEQ_CDC_OUT:
        return &cdc->halted_out;
    default:
        return 0;
    }
}

static void get_status(edgeq_cdc_t *cdc, const setup_t *setup) {
    uint8_t status[2] = {0, 0}; /* of the device: powered by the bus, does not wake the host */
    const bool *halt = halt_of(cdc, setup->index);
    const uint8_t recipient = setup->type & 0x1Fu;
    bool exists = setup->index == 0;
    if (recipient == TO_INTERFACE) {
        exists = cdc->configured && setup->index < INTERFACES;
    } else if (recipient == TO_ENDPOINT) {
        exists = halt != 0 || (setup->index & 0xFF7Fu) == 0;
        status[0] = halt != 0 && *halt;
    }
    if (!exists || setup->value != 0) {
        stall(cdc);
        return;
    }
    reply(cdc, setup, status, sizeof status);
}

/* The only feature: an endpoint's halt. Clearing sets the toggle back even where nothing was halted (9.4.5). */
static void set_halt(edgeq_cdc_t *cdc, const setup_t *setup, bool on) {
    bool *halt = halt_of(cdc, setup->index);
    const bool control = (setup->index & 0xFF7Fu) == 0 && !on;
    if (setup->value != 0 || setup->length != 0 || (halt == 0 && !control)) {
        stall(cdc);
        return;
    }
    if (halt != 0) {
        *halt = on;
        if (on) {
            cdc->usb->stall((uint8_t)setup->index);
        } else {
            if (setup->index == EDGEQ_CDC_OUT) {
                cdc->waiting = false;
            }
            cdc->usb->unstall((uint8_t)setup->index);
            send_more(cdc);
        }
    }
    finish(cdc);
}

static void set_address(edgeq_cdc_t *cdc, const setup_t *setup) {
    if (cdc->usb->set_address == 0) {
        return;
    }
    if (setup->value > ADDRESS_MAX || setup->index != 0 || setup->length != 0) {
        stall(cdc);
        return;
    }
    cdc->usb->set_address((uint8_t)setup->value);
    finish(cdc);
}

static void set_line_state(edgeq_cdc_t *cdc, const setup_t *setup) {
    const bool listens = (setup->value & 1u) != 0;
    const uint32_t baud = cdc->line_coding[0] | (uint32_t)cdc->line_coding[1] << 8 |
                          (uint32_t)cdc->line_coding[2] << 16 | (uint32_t)cdc->line_coding[3] << 24;
    if (!cdc->configured || setup->index != 0 || setup->length != 0) {
        stall(cdc);
        return;
    }
    if (cdc->listening && !listens) {
        edgeq_cdc_drop(cdc);
        cdc->left_slow = baud == TOUCH_BAUD;
    }
    cdc->listening = listens;
    finish(cdc);
}

static void set_line_coding(edgeq_cdc_t *cdc, const setup_t *setup) {
    if (!cdc->configured || setup->value != 0 || setup->index != 0 || setup->length != sizeof cdc->line_coding) {
        stall(cdc);
        return;
    }
    cdc->stage = EDGEQ_CDC_TAKES_CODING;
    cdc->usb->expect();
}

static void get_line_coding(edgeq_cdc_t *cdc, const setup_t *setup) {
    if (!cdc->configured || setup->value != 0 || setup->index != 0) {
        stall(cdc);
        return;
    }
    reply(cdc, setup, cdc->line_coding, sizeof cdc->line_coding);
}

static void get_selected(edgeq_cdc_t *cdc, const setup_t *setup, uint8_t selected, bool exists) {
    if (!exists || setup->value != 0) {
        stall(cdc);
        return;
    }
    reply(cdc, setup, &selected, 1);
}

void edgeq_cdc_setup(edgeq_cdc_t *cdc, const uint8_t bytes[EDGEQ_USB_SETUP_BYTES]) {
    const setup_t setup = {
        .type = bytes[0],
        .request = bytes[1],
        .value = (uint16_t)(bytes[2] | bytes[3] << 8),
        .index = (uint16_t)(bytes[4] | bytes[5] << 8),
        .length = (uint16_t)(bytes[6] | bytes[7] << 8),
    };
    cdc->stage = EDGEQ_CDC_IDLE;
    switch (setup.type << 8 | setup.request) {
    case FROM_DEVICE << 8 | GET_DESCRIPTOR:
        get_descriptor(cdc, &setup);
        break;
    case TO_DEVICE << 8 | SET_ADDRESS:
        set_address(cdc, &setup);
        break;
    case TO_DEVICE << 8 | SET_CONFIGURATION:
        set_configuration(cdc, &setup);
        break;
    case FROM_DEVICE << 8 | GET_CONFIGURATION:
        get_selected(cdc, &setup, cdc->configured, setup.index == 0);
        break;
    case FROM_INTERFACE << 8 | GET_INTERFACE:
        get_selected(cdc, &setup, 0, cdc->configured && setup.index < INTERFACES);
        break;
    case FROM_DEVICE << 8 | GET_STATUS:
    case FROM_INTERFACE << 8 | GET_STATUS:
    case FROM_ENDPOINT << 8 | GET_STATUS:
        get_status(cdc, &setup);
        break;
    case TO_ENDPOINT << 8 | SET_FEATURE:
    case TO_ENDPOINT << 8 | CLEAR_FEATURE:
        set_halt(cdc, &setup, setup.request == SET_FEATURE);
        break;
    case OF_CLASS << 8 | SET_LINE_CODING:
        set_line_coding(cdc, &setup);
        break;
    case FROM_CLASS << 8 | GET_LINE_CODING:
        get_line_coding(cdc, &setup);
        break;
    case OF_CLASS << 8 | SET_CONTROL_LINE_STATE:
        set_line_state(cdc, &setup);
        break;
    default:
        stall(cdc);
    }
}

/* ---- what happens on the bus ---- */

void edgeq_cdc_start(edgeq_cdc_t *cdc, const edgeq_usb_t *usb, const edgeq_cdc_identity_t *identity) {
    memset(cdc, 0, sizeof *cdc);
    cdc->usb = usb;
    cdc->identity = *identity;
    edgeq_cdc_reset(cdc);
}

void edgeq_cdc_reset(edgeq_cdc_t *cdc) {
    static const uint8_t coding[7] = {0x00, 0xC2, 0x01, 0x00, 0, 0, 8}; /* 115200 baud, 8N1 */
    forget_data(cdc);
    memcpy(cdc->line_coding, coding, sizeof coding);
    cdc->stage = EDGEQ_CDC_IDLE;
    cdc->configured = cdc->listening = cdc->left_slow = false;
}

void edgeq_cdc_sent(edgeq_cdc_t *cdc, uint8_t endpoint) {
    if (endpoint == 0 && cdc->stage == EDGEQ_CDC_REPLIES) {
        reply_more(cdc);
    } else if (endpoint == EDGEQ_CDC_IN) {
        cdc->sending = false;
        send_more(cdc);
    }
}

void edgeq_cdc_received(edgeq_cdc_t *cdc, uint8_t endpoint) {
    if (endpoint == 0 && cdc->stage == EDGEQ_CDC_TAKES_CODING) {
        if (cdc->usb->read(0, cdc->control) == sizeof cdc->line_coding) {
            memcpy(cdc->line_coding, cdc->control, sizeof cdc->line_coding);
            finish(cdc);
        } else {
            stall(cdc);
        }
    } else if (endpoint == EDGEQ_CDC_OUT && cdc->configured && !cdc->halted_out) {
        cdc->waiting = true;
        receive_more(cdc);
    }
}

/* ---- the serial port ---- */

int32_t edgeq_cdc_read(edgeq_cdc_t *cdc) {
    uint8_t byte;
    const bool some = take(&cdc->from_host, &byte, 1) != 0;
    receive_more(cdc);
    return some ? byte : -1;
}

uint32_t edgeq_cdc_write(edgeq_cdc_t *cdc, const uint8_t *bytes, uint32_t length) {
    if (!cdc->listening) {
        return length;
    }
    const uint32_t taken = length < room(&cdc->to_host) ? length : room(&cdc->to_host);
    put(&cdc->to_host, bytes, taken);
    send_more(cdc);
    return taken;
}

bool edgeq_cdc_drained(const edgeq_cdc_t *cdc) {
    return !cdc->listening || (!cdc->sending && held(&cdc->to_host) == 0);
}

void edgeq_cdc_drop(edgeq_cdc_t *cdc) {
    cdc->to_host.tail = cdc->to_host.head;
}
