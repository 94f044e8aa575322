/*
 * A serial port over USB: a full-speed device of the Communications Device Class, Abstract Control Model (USB 2.0
 * chapter 9; CDC 1.2; PSTN 1.2). It knows no registers: a chip's driver supplies edgeq_usb_t and reports what happened
 * on the bus by edgeq_cdc_reset, _setup, _sent and _received. Nothing here waits, and nothing is allocated.
 *
 * Run against a scripted host on a computer; never on hardware.
 */
#ifndef EDGEQ_USB_CDC_H
#define EDGEQ_USB_CDC_H

#include <stdbool.h>
#include <stdint.h>

#define EDGEQ_USB_PACKET_BYTES 64u
#define EDGEQ_USB_SETUP_BYTES  8u
#define EDGEQ_CDC_RING_BYTES   1024u /* each direction; a power of two */

/* Addresses of endpoints: bit 7 is "to the host". */
#define EDGEQ_CDC_NOTIFY 0x81u
#define EDGEQ_CDC_OUT    0x02u
#define EDGEQ_CDC_IN     0x82u

/* A chip's USB device controller. Endpoint 0 stalls until the next SETUP; it needs no `unstall`. */
typedef struct {
    void (*set_address)(uint8_t address); /* from the end of this control transfer on; 0: the chip answers by itself */
    void (*open)(bool opened);            /* the endpoints besides 0, toggles at DATA0 */
    void (*stall)(uint8_t endpoint);
    void (*unstall)(uint8_t endpoint); /* toggle at DATA0; a packet from the host that was not read is dropped */
    void (*write)(uint8_t endpoint, const uint8_t *packet, uint32_t bytes); /* one packet; in RAM until _sent */
    uint32_t (*read)(uint8_t endpoint, uint8_t *packet); /* takes the packet that lies there; until then NAK */
    void (*expect)(void);                                /* lets a control transfer's data packet in */
    void (*status)(void);                                /* lets a control transfer end */
} edgeq_usb_t;

typedef struct {
    uint8_t bytes[EDGEQ_CDC_RING_BYTES];
    uint32_t head, tail; /* count without end: put, taken */
} edgeq_cdc_ring_t;

typedef struct {
    uint16_t vendor, product;
    const char *serial_number; /* ASCII, at most 31 characters */
} edgeq_cdc_identity_t;

typedef struct {
    uint8_t control[EDGEQ_USB_PACKET_BYTES]; /* packets first, at a word's boundary, for a chip's DMA */
    uint8_t in[EDGEQ_USB_PACKET_BYTES];
    uint8_t out[EDGEQ_USB_PACKET_BYTES];
    const edgeq_usb_t *usb;
    edgeq_cdc_identity_t identity;
    edgeq_cdc_ring_t from_host, to_host;

    /* the control transfer that is under way */
    uint8_t reply[128];
    uint32_t reply_bytes, reply_sent;
    bool reply_ends_empty; /* a packet of length 0 says that there is no more */
    enum { EDGEQ_CDC_IDLE, EDGEQ_CDC_REPLIES, EDGEQ_CDC_TAKES_CODING } stage;

    uint8_t line_coding[7]; /* baud (4), stop bits, parity, data bits: kept for the host, changes nothing */
    bool configured;
    bool listening;  /* DTR: a terminal is open */
    bool left_slow;  /* the terminal was closed at 1200 baud: Arduino's sign for "start the boot loader" */
    bool sending;    /* a packet lies in EDGEQ_CDC_IN */
    bool owes_empty; /* the last packet was full */
    bool waiting;    /* a packet lies in EDGEQ_CDC_OUT and has no room in the ring */
    bool halted_notify, halted_in, halted_out;
} edgeq_cdc_t;

void edgeq_cdc_start(edgeq_cdc_t *cdc, const edgeq_usb_t *usb, const edgeq_cdc_identity_t *identity);

/* ---- for the chip's driver ---- */
void edgeq_cdc_reset(edgeq_cdc_t *cdc); /* the bus was reset */
void edgeq_cdc_setup(edgeq_cdc_t *cdc, const uint8_t setup[EDGEQ_USB_SETUP_BYTES]);
void edgeq_cdc_sent(edgeq_cdc_t *cdc, uint8_t endpoint);     /* the host has taken the packet */
void edgeq_cdc_received(edgeq_cdc_t *cdc, uint8_t endpoint); /* a packet of the host lies there, to be read */

/* ---- for the agent's port ---- */
int32_t edgeq_cdc_read(edgeq_cdc_t *cdc); /* the next byte, or -1 */

/* Takes as many bytes as there is room for, and says how many. Without a listener all of them: they are dropped. */
uint32_t edgeq_cdc_write(edgeq_cdc_t *cdc, const uint8_t *bytes, uint32_t length);
bool edgeq_cdc_drained(const edgeq_cdc_t *cdc); /* the host has taken everything, or nobody listens */
void edgeq_cdc_drop(edgeq_cdc_t *cdc);          /* forgets what no packet holds yet */

#endif
