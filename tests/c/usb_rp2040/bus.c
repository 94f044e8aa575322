/*
 * RP2040's USB device controller in memory, after the data sheet's chapter 4.1, under firmware/ports/rp2/usb.c. It
 * keeps the toggles as a host does and drops what comes with the wrong one.
 */
#define _GNU_SOURCE /* MAP_ANONYMOUS */
#include <string.h>
#include <sys/mman.h>

#include "chip.h"
#include "cortex_m.h"
#include "serial.h"
#include "usb_bus.h"

#define CELLS       0x100u
#define STATUS      0x50u /* of the engine */
#define BUFFERS     0x58u
#define STALL_ARM   0x68u
#define BUS_RESET   (1u << 19)
#define SETUP       (1u << 17)
#define FULL        (1u << 15)
#define DATA1       (1u << 13)
#define STALL       (1u << 11)
#define AVAILABLE   (1u << 10)
#define LENGTH      0x3FFu
#define ENABLED     (1u << 31)
#define MEMORY_SIZE 0x1000u

/* Two registers whose ones are cleared by writing ones: what a read gave bears a mark that changes, so that it shows
 * when it is written back. The marks are in bits that the driver does not look at. */
typedef struct {
    uint32_t value, shown;
    volatile uint32_t cell;
} sticky_t;

static sticky_t status, buffers;
static volatile uint32_t cells[CELLS], locked, elsewhere;
static uint32_t toggles, toggles_reset; /* by the bits of BUFF_STATUS; the latter at the end of the transfer */
static bool ends_in_toggles;

static volatile uint32_t *stick(sticky_t *sticky) {
    static uint32_t marks;
    if (sticky->cell != sticky->shown) {
        sticky->value &= ~sticky->cell;
    }
    marks = (marks + 1u) & 3u;
    sticky->cell = sticky->shown = sticky->value | (marks + 1u) << 27;
    return &sticky->cell;
}

volatile uint32_t *register_at(uint32_t address) {
    if (address - USB_MEMORY < MEMORY_SIZE) {
        return (volatile uint32_t *)(uintptr_t)address;
    }
    if (address - USB < CELLS) {
        return address == USB + STATUS    ? stick(&status)
               : address == USB + BUFFERS ? stick(&buffers)
                                          : &cells[address - USB];
    }
    locked = 0xFFFFFFFFu; /* PLLs and resets are done at once */
    return address == PLL_USB || address == RESETS + 8u ? &locked : &elsewhere;
}

static volatile uint32_t *settings(uint8_t number, bool in) {
    return register_at(USB_MEMORY + 8u * number + (in ? 0 : 4u));
}

static volatile uint32_t *buffer(uint8_t number, bool in) {
    return register_at(USB_MEMORY + 0x80u + 8u * number + (in ? 0 : 4u));
}

static volatile uint8_t *place(uint8_t number, bool in) {
    const uint32_t at = number == 0 ? 0x100u : *settings(number, in) & 0xFC0u;
    must(number == 0 || at >= 0x180u);
    return (volatile uint8_t *)(uintptr_t)(USB_MEMORY + at);
}

static uint32_t bit(uint8_t number, bool in) {
    return 1u << (2u * number + (in ? 0 : 1u));
}

static void poll(void) {
    edgeq_usb_poll();
    (void)stick(&status);
    (void)stick(&buffers);
}

/* 0, or what the endpoint answers without looking at its packet. */
static uint8_t refusal(uint8_t number, bool in) {
    const uint32_t is = *buffer(number, in);
    if (number != 0 && (*settings(number, in) & ENABLED) == 0) {
        return SILENT;
    }
    if ((is & STALL) != 0 && (number != 0 || (cells[STALL_ARM] & bit(0, in)) != 0)) {
        return STALLED;
    }
    return (is & AVAILABLE) == 0 ? NAK : 0;
}

static bool in_step(uint8_t number, bool in) {
    return ((*buffer(number, in) & DATA1) != 0) == ((toggles & bit(number, in)) != 0);
}

static void done(uint8_t number, bool in) {
    toggles ^= bit(number, in);
    (void)stick(&buffers);
    buffers.value |= bit(number, in);
    (void)stick(&buffers);
    poll();
}

uint8_t bus_in(uint8_t number, uint8_t *packet, uint32_t *length) {
    const uint8_t refused = refusal(number, true);
    if (refused != 0) {
        return refused;
    }
    volatile uint32_t *const is = buffer(number, true);
    must((*is & FULL) != 0 && in_step(number, true));
    *length = *is & LENGTH;
    must(*length <= EDGEQ_USB_PACKET_BYTES);
    for (uint32_t i = 0; i < *length; ++i) {
        packet[i] = place(number, true)[i];
    }
    *is &= ~(AVAILABLE | FULL);
    if (number == 0 && ends_in_toggles) {
        toggles &= ~toggles_reset;
        ends_in_toggles = false;
    }
    done(number, true);
    return DATA;
}

uint8_t bus_out(uint8_t number, const uint8_t *bytes, uint32_t length) {
    const uint8_t refused = refusal(number, false);
    if (refused != 0) {
        return refused;
    }
    volatile uint32_t *const is = buffer(number, false);
    must((*is & FULL) == 0);
    if (!in_step(number, false)) {
        return ACK; /* taken for a repetition */
    }
    if (length > (*is & LENGTH)) {
        return NAK;
    }
    for (uint32_t i = 0; i < length; ++i) {
        place(number, false)[i] = bytes[i];
    }
    *is = (*is & DATA1) | FULL | length;
    done(number, false);
    return ACK;
}

void bus_setup(const uint8_t *bytes) {
    const bool configures = bytes[0] == 0 && bytes[1] == 9;
    const bool clears = bytes[0] == 2 && bytes[1] == 1 && (bytes[4] & 0x0Fu) < ENDPOINTS;
    toggles_reset = configures ? ~3u : clears ? bit(bytes[4] & 0x0Fu, (bytes[4] & 0x80u) != 0) & ~3u : 0;
    ends_in_toggles = toggles_reset != 0;
    toggles |= 3u;
    for (uint32_t i = 0; i < EDGEQ_USB_SETUP_BYTES; ++i) {
        ((volatile uint8_t *)(uintptr_t)USB_MEMORY)[i] = bytes[i];
    }
    cells[STALL_ARM] = 0;
    status.value |= SETUP;
    (void)stick(&status);
    poll();
    must((status.value & SETUP) == 0);
}

void bus_reset(void) {
    toggles = 0;
    ends_in_toggles = false;
    status.value |= BUS_RESET;
    (void)stick(&status);
    poll();
    must((status.value & BUS_RESET) == 0);
}

uint8_t bus_address(void) {
    return (uint8_t)cells[0];
}

void bus_start(void) {
    void *const memory = (void *)(uintptr_t)USB_MEMORY;
    must(mmap(memory, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == memory);
    serial_start();
}
