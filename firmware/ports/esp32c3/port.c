/*
 * ESP32-C3 at 160 MHz, started by the ROM from flash without a second boot loader ("direct boot", chip revision 3 and
 * later): watchdogs off, UART0 on GPIO20 and GPIO21 (the USB bridge of the DevKitM-1) as the ROM routed it, the core's
 * cycle counter. The ROM starts the core at half the crystal's 40 MHz; the 480 MHz PLL runs after reset.
 *
 * Only compiled and linked; has never run on hardware. Registers after ESP-IDF's headers components/soc/esp32c3.
 */
#include "riscv.h"

#define UART0       0x60000000u
#define UART_FIFO   EDGEQ_REGISTER(UART0 + 0x00u)
#define UART_STATUS EDGEQ_REGISTER(UART0 + 0x1Cu)
#define UART_CLKDIV EDGEQ_REGISTER(UART0 + 0x14u)
#define UART_CLOCK  EDGEQ_REGISTER(UART0 + 0x78u)
#define UART_ID     EDGEQ_REGISTER(UART0 + 0x80u)
#define UART_STATE  EDGEQ_REGISTER(UART0 + 0x6Cu)

#define UART_RECEIVED      0x3FFu
#define UART_TO_SEND       (0x3FFu << 16)
#define UART_FIFO_BYTES    128u
#define UART_SENDING       (0xFu << 4)
#define UART_CLOCK_CRYSTAL (3u << 20)
#define UART_CLOCK_SOURCE  (3u << 20)
#define UART_UPDATE        (1u << 31)
#define UART_AUTO_UPDATE   (1u << 30)
#define CRYSTAL_HZ         40000000u

#define RTC_OPTIONS         EDGEQ_REGISTER(0x60008000u)
#define RTC_WATCHDOG        EDGEQ_REGISTER(0x60008090u)
#define RTC_WATCHDOG_LOCK   EDGEQ_REGISTER(0x600080A8u)
#define SUPER_WATCHDOG      EDGEQ_REGISTER(0x600080ACu)
#define SUPER_WATCHDOG_LOCK EDGEQ_REGISTER(0x600080B0u)
#define GROUP_WATCHDOG(n)   EDGEQ_REGISTER(0x6001F048u + 0x1000u * (n))
#define GROUP_LOCK(n)       EDGEQ_REGISTER(0x6001F064u + 0x1000u * (n))
#define WATCHDOG_KEY        0x50D83AA1u
#define SUPER_WATCHDOG_KEY  0x8F1D312Au
#define SUPER_FEEDS_ITSELF  (1u << 31)
#define RESET_SYSTEM        (1u << 31)

#define CPU_CLOCK         EDGEQ_REGISTER(0x600C0008u)
#define SYSTEM_CLOCK      EDGEQ_REGISTER(0x600C0058u)
#define CPU_CLOCK_FIELDS  7u
#define PLL_480_CPU_160   5u
#define SYSTEM_CLOCK_FROM (3u << 10)
#define SYSTEM_FROM_PLL   (1u << 10)

_Static_assert(EDGEQ_CORE_HZ == 160000000u, "the clock that start_clocks sets");

static uint32_t last_value;
static uint64_t counted;

static void stop_watchdogs(void) {
    for (uint32_t n = 0; n < 2; ++n) {
        GROUP_LOCK(n) = WATCHDOG_KEY;
        GROUP_WATCHDOG(n) = 0;
        GROUP_LOCK(n) = 0;
    }
    RTC_WATCHDOG_LOCK = WATCHDOG_KEY;
    RTC_WATCHDOG = 0;
    RTC_WATCHDOG_LOCK = 0;
    SUPER_WATCHDOG_LOCK = SUPER_WATCHDOG_KEY;
    SUPER_WATCHDOG |= SUPER_FEEDS_ITSELF;
    SUPER_WATCHDOG_LOCK = 0;
}

static void start_clocks(void) {
    CPU_CLOCK = (CPU_CLOCK & ~CPU_CLOCK_FIELDS) | PLL_480_CPU_160;
    SYSTEM_CLOCK = (SYSTEM_CLOCK & ~SYSTEM_CLOCK_FROM) | SYSTEM_FROM_PLL;
}

static void update_uart(void) {
    UART_ID |= UART_UPDATE;
    while ((UART_ID & UART_UPDATE) != 0) {
    }
}

/* The crystal clocks the UART, whatever clocks the core; the divider has sixteenths. */
static void start_uart(void) {
    const uint32_t sixteenths = (16u * CRYSTAL_HZ + EDGEQ_BAUD / 2u) / EDGEQ_BAUD;
    UART_ID &= ~UART_AUTO_UPDATE;
    UART_CLOCK = (UART_CLOCK & ~UART_CLOCK_SOURCE) | UART_CLOCK_CRYSTAL;
    UART_CLOCK &= 0xFFF00FFFu;
    UART_CLKDIV = sixteenths >> 4 | (sixteenths & 15u) << 20;
    update_uart();
}

void edgeq_port_start(void) {
    stop_watchdogs();
    start_clocks();
    start_uart();
}

int32_t edgeq_port_read(void) {
    return (UART_STATUS & UART_RECEIVED) != 0 ? (int32_t)(UART_FIFO & 0xFFu) : -1;
}

void edgeq_port_write(const uint8_t *bytes, uint32_t length) {
    for (uint32_t i = 0; i < length; ++i) {
        while ((UART_STATUS & UART_TO_SEND) >> 16 >= UART_FIFO_BYTES - 1u) {
        }
        UART_FIFO = bytes[i];
    }
}

/* The core's own counter (machine performance counter): event 1 is a cycle. */
void edgeq_port_timer_start(void) {
    __asm volatile("csrw 0x7e0, %0\n csrw 0x7e1, %0" ::"r"(1));
    __asm volatile("csrr %0, 0x7e2" : "=r"(last_value));
    counted = 0;
}

void edgeq_port_timer_stop(void) {
    __asm volatile("csrw 0x7e1, zero");
}

uint64_t edgeq_port_ticks(void) {
    uint32_t value;
    __asm volatile("csrr %0, 0x7e2" : "=r"(value));
    counted += value - last_value;
    last_value = value;
    return counted;
}

void edgeq_port_info(edgeq_port_info_t *info) {
    info->timer_kind = EDGEQ_TIMER_CYCLES;
    info->timer_resolution = 1;
    info->timer_hz = EDGEQ_CORE_HZ;
    info->core_hz = EDGEQ_CORE_HZ;
    info->progress_ticks = EDGEQ_CORE_HZ / 4u;
    info->capabilities = EDGEQ_INSTRUCTION_CACHE_ON;
    edgeq_riscv_info(info);
}

void edgeq_port_restart(void) {
    RTC_OPTIONS |= RESET_SYSTEM;
    for (;;) {
    }
}

void edgeq_port_reset(void) {
    while ((UART_STATUS & UART_TO_SEND) != 0 || (UART_STATE & UART_SENDING) != 0) {
    }
    edgeq_port_restart();
}
