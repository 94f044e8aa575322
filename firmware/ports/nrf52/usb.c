/*
 * The USB socket as a serial port: nRF52840's USBD (Product Specification 1.1, 6.35) under ../usb/cdc.c, polled.
 * During an inference it is polled after each layer; within one, packets wait (NAK), and so do control transfers, which
 * USB 2.0, 9.2.6, grants 50 to 500 ms and hosts grant seconds.
 *
 * Only compiled and linked; it has never run on hardware. Workarounds of the errata 171, 187 and 199 are the ones that
 * Nordic publishes.
 */
#include "cortex_m.h"
#include "line.h"
#include "serial.h"

#define POWER_GPREGRET     EDGEQ_REGISTER(0x4000051Cu) /* outlives a reset */
#define POWER_USBREGSTATUS EDGEQ_REGISTER(0x40000438u)
#define VBUS_DETECTED      1u
#define REGULATOR_READY    2u
#define FICR_DEVICEID(n)   EDGEQ_REGISTER(0x10000060u + 4u * (n))

#define USBD                0x40027000u
#define USBD_STARTEPIN(n)   EDGEQ_REGISTER(USBD + 0x004u + 4u * (n))
#define USBD_STARTEPOUT(n)  EDGEQ_REGISTER(USBD + 0x028u + 4u * (n))
#define USBD_EP0RCVOUT      EDGEQ_REGISTER(USBD + 0x04Cu)
#define USBD_EP0STATUS      EDGEQ_REGISTER(USBD + 0x050u)
#define USBD_EP0STALL       EDGEQ_REGISTER(USBD + 0x054u)
#define USBD_USBRESET       EDGEQ_REGISTER(USBD + 0x100u)
#define USBD_ENDEPIN(n)     EDGEQ_REGISTER(USBD + 0x108u + 4u * (n))
#define USBD_EP0DATADONE    EDGEQ_REGISTER(USBD + 0x128u)
#define USBD_ENDEPOUT(n)    EDGEQ_REGISTER(USBD + 0x130u + 4u * (n))
#define USBD_EP0SETUP       EDGEQ_REGISTER(USBD + 0x15Cu)
#define USBD_EPDATA         EDGEQ_REGISTER(USBD + 0x160u)
#define USBD_EVENTCAUSE     EDGEQ_REGISTER(USBD + 0x400u) /* writing ones clears */
#define USBD_EPDATASTATUS   EDGEQ_REGISTER(USBD + 0x46Cu) /* writing ones clears */
#define USBD_SETUP_BYTE(n)  EDGEQ_REGISTER(USBD + 0x480u + 4u * (n))
#define USBD_SIZE_EPOUT(n)  EDGEQ_REGISTER(USBD + 0x4A0u + 4u * (n))
#define USBD_ENABLE         EDGEQ_REGISTER(USBD + 0x500u)
#define USBD_USBPULLUP      EDGEQ_REGISTER(USBD + 0x504u)
#define USBD_DTOGGLE        EDGEQ_REGISTER(USBD + 0x50Cu)
#define USBD_EPINEN         EDGEQ_REGISTER(USBD + 0x510u)
#define USBD_EPOUTEN        EDGEQ_REGISTER(USBD + 0x514u)
#define USBD_EPSTALL        EDGEQ_REGISTER(USBD + 0x518u)
#define USBD_EPIN_PTR(n)    EDGEQ_REGISTER(USBD + 0x600u + 0x14u * (n))
#define USBD_EPIN_MAXCNT(n) EDGEQ_REGISTER(USBD + 0x604u + 0x14u * (n))
#define USBD_EPOUT_PTR(n)   EDGEQ_REGISTER(USBD + 0x700u + 0x14u * (n))
#define USBD_EPOUT_MAX(n)   EDGEQ_REGISTER(USBD + 0x704u + 0x14u * (n))
#define CAUSE_READY         (1u << 11)
#define TOGGLE_DATA0        (1u << 8)
#define STALL               (1u << 8)
#define NUMBER(endpoint)    ((endpoint) & 7u)
#define OUT_STATUS(n)       (1u << (16u + (n)))
#define IN_STATUS(n)        (1u << (n))

#define ERRATA_LOCK     EDGEQ_REGISTER(0x4006EC00u)
#define ERRATA_KEY      0x9375u
#define ERRATUM_171     EDGEQ_REGISTER(0x4006EC14u)
#define ERRATUM_187     EDGEQ_REGISTER(0x4006ED14u)
#define ERRATUM_199     EDGEQ_REGISTER(USBD + 0xC1Cu)
#define ERRATUM_171_ON  0xC0u
#define ERRATUM_187_ON  3u
#define ERRATUM_199_DMA 0x82u

#define START_BOOT_LOADER 0xB0u    /* what Arduino's boot loader looks for in GPREGRET */
#define DMA_PATIENCE      10000u   /* turns: far longer than 64 bytes take */
#define CONTROL_END       1000000u /* turns: some 50 ms for the last transfer before a restart */
#define SERIAL_DIGITS     16u

edgeq_cdc_t edgeq_usb_line;
static char serial_number[SERIAL_DIGITS + 1];
static enum { OFF, ENABLED, ATTACHED } state;
static bool control_to_host; /* the direction of the control transfer that is under way */

/* What the core has written is in RAM before the DMA is told, and the other way round. */
static void barrier(void) {
    __asm volatile("dsb" ::: "memory");
}

/* Erratum 199: no other task may be given meanwhile, so it is waited for. */
static void move(volatile uint32_t *start, volatile uint32_t *end) {
    *end = 0;
    ERRATUM_199 = ERRATUM_199_DMA;
    barrier();
    *start = 1;
    for (uint32_t turn = 0; turn < DMA_PATIENCE && *end == 0; ++turn) {
    }
    barrier();
    ERRATUM_199 = 0;
}

static void usb_write(uint8_t endpoint, const uint8_t *packet, uint32_t bytes) {
    const uint32_t n = NUMBER(endpoint);
    USBD_EPIN_PTR(n) = (uint32_t)(uintptr_t)packet;
    USBD_EPIN_MAXCNT(n) = bytes;
    move(&USBD_STARTEPIN(n), &USBD_ENDEPIN(n));
}

/* The end of the move frees the endpoint for the host's next packet. */
static uint32_t usb_read(uint8_t endpoint, uint8_t *packet) {
    const uint32_t n = NUMBER(endpoint), size = USBD_SIZE_EPOUT(n);
    const uint32_t bytes = size < EDGEQ_USB_PACKET_BYTES ? size : EDGEQ_USB_PACKET_BYTES;
    USBD_EPOUT_PTR(n) = (uint32_t)(uintptr_t)packet;
    USBD_EPOUT_MAX(n) = bytes;
    move(&USBD_STARTEPOUT(n), &USBD_ENDEPOUT(n));
    return bytes;
}

static void usb_stall(uint8_t endpoint) {
    if (endpoint == 0) {
        USBD_EP0STALL = 1;
    } else {
        USBD_EPSTALL = STALL | endpoint;
    }
}

static void usb_unstall(uint8_t endpoint) {
    USBD_EPSTALL = endpoint;
    USBD_DTOGGLE = endpoint; /* selects, then sets */
    USBD_DTOGGLE = TOGGLE_DATA0 | endpoint;
    if (endpoint == EDGEQ_CDC_OUT) {
        USBD_SIZE_EPOUT(NUMBER(endpoint)) = 0;
    }
}

static void usb_open(bool opened) {
    USBD_EPINEN = opened ? 1u | IN_STATUS(NUMBER(EDGEQ_CDC_NOTIFY)) | IN_STATUS(NUMBER(EDGEQ_CDC_IN)) : 1u;
    USBD_EPOUTEN = opened ? 1u | 1u << NUMBER(EDGEQ_CDC_OUT) : 1u;
    if (opened) {
        usb_unstall(EDGEQ_CDC_NOTIFY);
        usb_unstall(EDGEQ_CDC_IN);
        usb_unstall(EDGEQ_CDC_OUT);
    }
}

static void usb_expect(void) {
    USBD_EP0RCVOUT = 1;
}

static void usb_status(void) {
    USBD_EP0STATUS = 1;
}

/* SET_ADDRESS is answered by the controller itself. */
static const edgeq_usb_t usb = {
    .open = usb_open,
    .stall = usb_stall,
    .unstall = usb_unstall,
    .write = usb_write,
    .read = usb_read,
    .expect = usb_expect,
    .status = usb_status,
};

static void set_erratum(volatile uint32_t *place, uint32_t value) {
    const bool locked = ERRATA_LOCK == 0;
    if (locked) {
        ERRATA_LOCK = ERRATA_KEY;
    }
    *place = value;
    if (locked) {
        ERRATA_LOCK = ERRATA_KEY;
    }
}

/* The controller sleeps while there is no cable; the host sees the board when the pull-up is on. */
static void follow_the_cable(void) {
    const uint32_t power = POWER_USBREGSTATUS;
    if ((power & VBUS_DETECTED) == 0) {
        if (state != OFF) {
            USBD_USBPULLUP = 0;
            USBD_ENABLE = 0;
            edgeq_cdc_reset(&edgeq_usb_line);
            state = OFF;
        }
    } else if (state == OFF) {
        USBD_EVENTCAUSE = CAUSE_READY;
        set_erratum(&ERRATUM_187, ERRATUM_187_ON);
        set_erratum(&ERRATUM_171, ERRATUM_171_ON);
        USBD_ENABLE = 1;
        state = ENABLED;
    } else if (state == ENABLED && (USBD_EVENTCAUSE & CAUSE_READY) != 0 && (power & REGULATOR_READY) != 0) {
        USBD_EVENTCAUSE = CAUSE_READY;
        set_erratum(&ERRATUM_171, 0);
        set_erratum(&ERRATUM_187, 0);
        USBD_USBPULLUP = 1;
        state = ATTACHED;
    }
}

static void take_setup(void) {
    uint8_t setup[EDGEQ_USB_SETUP_BYTES];
    for (uint32_t i = 0; i < EDGEQ_USB_SETUP_BYTES; ++i) {
        setup[i] = (uint8_t)USBD_SETUP_BYTE(i);
    }
    control_to_host = (setup[0] & 0x80u) != 0;
    edgeq_cdc_setup(&edgeq_usb_line, setup);
}

/* A SETUP ends the transfer before it, whatever had still been done there. */
static void poll_control(void) {
    if (USBD_EP0SETUP != 0) {
        USBD_EP0DATADONE = 0;
        USBD_EP0SETUP = 0;
        take_setup();
    } else if (USBD_EP0DATADONE != 0) {
        USBD_EP0DATADONE = 0;
        if (control_to_host) {
            edgeq_cdc_sent(&edgeq_usb_line, 0);
        } else {
            edgeq_cdc_received(&edgeq_usb_line, 0);
        }
    }
}

static void poll_data(void) {
    if (USBD_EPDATA == 0) {
        return;
    }
    USBD_EPDATA = 0;
    const uint32_t done = USBD_EPDATASTATUS;
    USBD_EPDATASTATUS = done;
    if ((done & IN_STATUS(NUMBER(EDGEQ_CDC_IN))) != 0) {
        edgeq_cdc_sent(&edgeq_usb_line, EDGEQ_CDC_IN);
    }
    if ((done & OUT_STATUS(NUMBER(EDGEQ_CDC_OUT))) != 0) {
        edgeq_cdc_received(&edgeq_usb_line, EDGEQ_CDC_OUT);
    }
}

static void start_boot_loader(void) {
    for (volatile uint32_t turn = 0; turn < CONTROL_END; ++turn) {
    }
    POWER_GPREGRET = START_BOOT_LOADER;
    edgeq_cortex_m_reset();
}

void edgeq_usb_poll(void) {
    follow_the_cable();
    if (state != ATTACHED) {
        return;
    }
    if (USBD_USBRESET != 0) {
        USBD_USBRESET = 0;
        USBD_EPDATA = 0;
        USBD_EPDATASTATUS = USBD_EPDATASTATUS;
        edgeq_cdc_reset(&edgeq_usb_line);
    }
    poll_control();
    poll_data();
    if (edgeq_usb_line.left_slow) {
        start_boot_loader();
    }
}

void serial_start(void) {
    const edgeq_cdc_identity_t identity = {EDGEQ_USB_VENDOR, EDGEQ_USB_PRODUCT, serial_number};
    for (uint32_t i = 0; i < SERIAL_DIGITS; ++i) {
        serial_number[i] = "0123456789ABCDEF"[FICR_DEVICEID(1u - i / 8u) >> (28u - 4u * (i % 8u)) & 15u];
    }
    USBD_USBPULLUP = 0;
    USBD_ENABLE = 0;
    edgeq_cdc_start(&edgeq_usb_line, &usb, &identity);
}
