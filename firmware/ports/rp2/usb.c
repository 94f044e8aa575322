/*
 * The USB socket as a serial port: RP2040's controller (data sheet 4.1) under ../usb/cdc.c, polled, one buffer an
 * endpoint. All boards have the same, empty serial number: the
 * chip has none of its own.
 *
 * Only compiled and linked; it has never run on hardware. Erratum RP2040-E5 (steps B0 and B1 behind some hubs) is not
 * worked around.
 */
#include "line.h"
#include "rp2.h"
#include "serial.h"

#define CLK_USB_CTRL   EDGEQ_REGISTER(CLOCKS + 0x54u)
#define CLK_USB_ON_PLL (1u << 11)
#define VCO_1200_MHZ   100u
#define DIVIDE_BY_5_5  (5u << 16 | 5u << 12)

#define USB_ADDRESS       EDGEQ_REGISTER(USB + 0x00u)
#define USB_MAIN          EDGEQ_REGISTER(USB + 0x40u)
#define USB_ENGINE        EDGEQ_REGISTER(USB + 0x4Cu) /* SIE_CTRL */
#define USB_ENGINE_STATUS EDGEQ_REGISTER(USB + 0x50u) /* writing ones clears */
#define USB_BUFFERS_DONE  EDGEQ_REGISTER(USB + 0x58u) /* writing ones clears */
#define USB_STALL_ARM     EDGEQ_REGISTER(USB + 0x68u)
#define USB_MUXING        EDGEQ_REGISTER(USB + 0x74u)
#define USB_POWER         EDGEQ_REGISTER(USB + 0x78u)
#define MAIN_ON           1u
#define ENGINE_EP0_TELLS  (1u << 29)
#define ENGINE_PULL_UP    (1u << 16)
#define STATUS_BUS_RESET  (1u << 19)
#define STATUS_SETUP      (1u << 17)
#define STALL_ARM_BOTH    3u
#define MUXING_TO_PHY     (1u << 0 | 1u << 3)
#define POWER_VBUS_FORCED (1u << 2 | 1u << 3)

/* In the controller's memory: the setup packet, then two words an endpoint for its settings, then for its buffer. */
#define SETUP_BYTE(n)       (*(volatile uint8_t *)(USB_MEMORY + (n)))
#define ENDPOINT(address)   EDGEQ_REGISTER(USB_MEMORY + 8u * NUMBER(address) + OUTWARDS(address))
#define BUFFER(address)     EDGEQ_REGISTER(USB_MEMORY + 0x80u + 8u * NUMBER(address) + OUTWARDS(address))
#define DONE(address)       (1u << (2u * NUMBER(address) + OUTWARDS(address) / 4u))
#define PACKET_PLACE(place) (0x100u + 64u * (place))
#define NUMBER(address)     ((address) & 0x0Fu)
#define OUTWARDS(address)   (((address) & 0x80u) != 0 ? 0u : 4u) /* from the host; its own direction comes first */
#define EP0_IN              0x80u
#define EP0_OUT             0x00u
#define ENDPOINT_ON         (1u << 31 | 1u << 29) /* tells of each packet */
#define BULK                (2u << 26)
#define INTERRUPT           (3u << 26)
#define BUFFER_FULL         (1u << 15)
#define BUFFER_DATA1        (1u << 13)
#define BUFFER_STALL        (1u << 11)
#define BUFFER_AVAILABLE    (1u << 10)
#define BUFFER_LENGTH       0x3FFu

#define CONTROL_END 1000000u /* turns: some 50 ms for the last transfer before the boot loader */

edgeq_cdc_t edgeq_usb_line;
static uint32_t next_data1;    /* by DONE's bits: the next packet is DATA1 */
static bool control_to_host;   /* the direction of the control transfer that is under way */
static uint32_t address_later; /* holds from the end of the control transfer on; 0: nothing changes */

static volatile uint8_t *packet_of(uint8_t address) {
    const uint32_t places[] = {0, address == EDGEQ_CDC_NOTIFY ? 2u : 3u, address == EDGEQ_CDC_IN ? 4u : 5u};
    return (volatile uint8_t *)(USB_MEMORY + PACKET_PLACE(places[NUMBER(address)]));
}

/* The other bits must stand for a while of the slower USB clock before the controller may see that they are valid. */
static void hand_over(uint8_t address, uint32_t buffer) {
    buffer |= (next_data1 & DONE(address)) != 0 ? BUFFER_DATA1 : 0;
    next_data1 ^= DONE(address);
    BUFFER(address) = buffer;
    for (uint32_t wait = 0; wait < 4; ++wait) {
        __asm volatile("nop\n nop\n nop" ::: "memory");
    }
    BUFFER(address) = buffer | BUFFER_AVAILABLE;
}

static void usb_set_address(uint8_t address) {
    address_later = address;
}

static void usb_write(uint8_t endpoint, const uint8_t *packet, uint32_t bytes) {
    const uint8_t address = endpoint == 0 ? EP0_IN : endpoint;
    volatile uint8_t *const place = packet_of(address);
    for (uint32_t i = 0; i < bytes; ++i) {
        place[i] = packet[i];
    }
    hand_over(address, BUFFER_FULL | bytes);
}

/* Bulk: the endpoint is free for the host's next packet then. */
static uint32_t usb_read(uint8_t endpoint, uint8_t *packet) {
    const volatile uint8_t *const place = packet_of(endpoint);
    const uint32_t length = BUFFER(endpoint) & BUFFER_LENGTH;
    const uint32_t bytes = length < EDGEQ_USB_PACKET_BYTES ? length : EDGEQ_USB_PACKET_BYTES;
    for (uint32_t i = 0; i < bytes; ++i) {
        packet[i] = place[i];
    }
    if (endpoint != 0) {
        hand_over(endpoint, EDGEQ_USB_PACKET_BYTES);
    }
    return bytes;
}

static void usb_stall(uint8_t endpoint) {
    if (endpoint == 0) {
        USB_STALL_ARM = STALL_ARM_BOTH;
        BUFFER(EP0_IN) = BUFFER_STALL;
        BUFFER(EP0_OUT) = BUFFER_STALL;
    } else {
        BUFFER(endpoint) = BUFFER_STALL;
    }
}

static void usb_unstall(uint8_t endpoint) {
    BUFFER(endpoint) = 0;
    USB_BUFFERS_DONE = DONE(endpoint);
    next_data1 &= ~DONE(endpoint);
    if (endpoint == EDGEQ_CDC_OUT) {
        hand_over(endpoint, EDGEQ_USB_PACKET_BYTES);
    }
}

static void set_endpoint(uint8_t address, uint32_t kind, bool on) {
    ENDPOINT(address) = on ? ENDPOINT_ON | kind | ((uint32_t)(uintptr_t)packet_of(address) & 0xFFFu) : 0;
    BUFFER(address) = 0;
    if (on) {
        usb_unstall(address);
    }
}

static void usb_open(bool opened) {
    set_endpoint(EDGEQ_CDC_NOTIFY, INTERRUPT, opened);
    set_endpoint(EDGEQ_CDC_IN, BULK, opened);
    set_endpoint(EDGEQ_CDC_OUT, BULK, opened);
}

/* Every stage of a control transfer behind SETUP begins with DATA1. */
static void usb_expect(void) {
    next_data1 |= DONE(EP0_OUT);
    hand_over(EP0_OUT, EDGEQ_USB_PACKET_BYTES);
}

static void usb_status(void) {
    const uint8_t address = control_to_host ? EP0_OUT : EP0_IN;
    next_data1 |= DONE(address);
    hand_over(address, control_to_host ? 0 : BUFFER_FULL);
}

static const edgeq_usb_t usb = {
    .set_address = usb_set_address,
    .open = usb_open,
    .stall = usb_stall,
    .unstall = usb_unstall,
    .write = usb_write,
    .read = usb_read,
    .expect = usb_expect,
    .status = usb_status,
};

static void reset_bus(void) {
    USB_ADDRESS = 0;
    address_later = 0;
    BUFFER(EP0_IN) = 0;
    BUFFER(EP0_OUT) = 0;
    usb_open(false);
    USB_BUFFERS_DONE = 0xFFFFFFFFu;
    edgeq_cdc_reset(&edgeq_usb_line);
}

/* A SETUP ends the transfer before it, whatever had still been done there. */
static void take_setup(void) {
    uint8_t setup[EDGEQ_USB_SETUP_BYTES];
    for (uint32_t i = 0; i < EDGEQ_USB_SETUP_BYTES; ++i) {
        setup[i] = SETUP_BYTE(i);
    }
    BUFFER(EP0_IN) = 0;
    BUFFER(EP0_OUT) = 0;
    USB_BUFFERS_DONE = DONE(EP0_IN) | DONE(EP0_OUT);
    next_data1 |= DONE(EP0_IN) | DONE(EP0_OUT);
    control_to_host = (setup[0] & 0x80u) != 0;
    address_later = 0;
    edgeq_cdc_setup(&edgeq_usb_line, setup);
}

static void take_done(uint32_t done) {
    USB_BUFFERS_DONE = done;
    if ((done & DONE(EP0_IN)) != 0) {
        if (address_later != 0) {
            USB_ADDRESS = address_later;
            address_later = 0;
        }
        edgeq_cdc_sent(&edgeq_usb_line, 0);
    }
    if ((done & DONE(EP0_OUT)) != 0) {
        edgeq_cdc_received(&edgeq_usb_line, 0);
    }
    if ((done & DONE(EDGEQ_CDC_IN)) != 0) {
        edgeq_cdc_sent(&edgeq_usb_line, EDGEQ_CDC_IN);
    }
    if ((done & DONE(EDGEQ_CDC_OUT)) != 0) {
        edgeq_cdc_received(&edgeq_usb_line, EDGEQ_CDC_OUT);
    }
}

/* The ROM finds its functions by two letters (data sheet 2.8.3): reset_usb_boot, with no light and all interfaces. */
static void start_boot_loader(void) {
    typedef uint32_t (*lookup_t)(uint32_t table, uint32_t code);
    typedef void (*usb_boot_t)(uint32_t pins, uint32_t disabled);
    uintptr_t rom = 0x14;
    __asm volatile("" : "+r"(rom)); /* else compilers take an address so low for a mistake */
    const uint16_t *const pointers = (const uint16_t *)rom;
    const lookup_t lookup = (lookup_t)(uintptr_t)pointers[2];
    const usb_boot_t usb_boot = (usb_boot_t)(uintptr_t)lookup(pointers[0], 'U' | 'B' << 8);
    for (volatile uint32_t turn = 0; turn < CONTROL_END; ++turn) {
    }
    usb_boot(0, 0);
}

void edgeq_usb_poll(void) {
    const uint32_t status = USB_ENGINE_STATUS;
    if ((status & STATUS_BUS_RESET) != 0) {
        USB_ENGINE_STATUS = STATUS_BUS_RESET;
        reset_bus();
    }
    take_done(USB_BUFFERS_DONE);
    if ((status & STATUS_SETUP) != 0) {
        USB_ENGINE_STATUS = STATUS_SETUP;
        take_setup();
    }
    if (edgeq_usb_line.left_slow) {
        start_boot_loader();
    }
}

void serial_start(void) {
    const edgeq_cdc_identity_t identity = {EDGEQ_USB_VENDOR, EDGEQ_USB_PRODUCT, ""};
    rp2_start_pll(PLL_USB, RESET_PLL_USB, VCO_1200_MHZ, DIVIDE_BY_5_5);
    CLK_USB_CTRL = CLK_USB_ON_PLL;
    EDGEQ_REGISTER(RESETS + SET_BITS) = RESET_USB;
    rp2_out_of_reset(RESET_USB);
    for (uint32_t place = 0; place < PACKET_PLACE(0); place += 4u) {
        EDGEQ_REGISTER(USB_MEMORY + place) = 0;
    }
    edgeq_cdc_start(&edgeq_usb_line, &usb, &identity);
    USB_MUXING = MUXING_TO_PHY;
    USB_POWER = POWER_VBUS_FORCED;
    USB_MAIN = MAIN_ON;
    USB_ENGINE = ENGINE_EP0_TELLS | ENGINE_PULL_UP;
}

/* edgeq_port_write has waited. */
void serial_drain(void) {
}
