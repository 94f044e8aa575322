/*
 * i.MX RT1062 (Teensy 4.1) at 600 MHz: the Arm PLL of the 24 MHz crystal, core supply at 1.25 V, caches on, LPUART6 on
 * pins 0 (in) and 1 (out), cycle counter. The board's USB connector is not used: a 3.3 V serial adapter is needed.
 *
 * Only compiled and linked; has never run on hardware. Registers after PaulStoffregen/cores teensy4/imxrt.h.
 */
#include "caches.h"
#include "cycles.h"

#define DCDC_STATUS     EDGEQ_REGISTER(0x40080000u)
#define DCDC_VOLTAGE    EDGEQ_REGISTER(0x4008000Cu)
#define DCDC_SETTLED    (1u << 31)
#define VOLTAGE_FIELD   31u
#define VOLTAGE_1250_MV ((1250u - 800u) / 25u)
#define PLL_ARM         EDGEQ_REGISTER(0x400D8000u)
#define PLL_LOCKED      (1u << 31)
#define PLL_ENABLE      (1u << 13)
#define PLL_POWER_DOWN  (1u << 12)

#define CCM_CACRR            EDGEQ_REGISTER(0x400FC010u)
#define CCM_CBCDR            EDGEQ_REGISTER(0x400FC014u)
#define CCM_CBCMR            EDGEQ_REGISTER(0x400FC018u)
#define CCM_CSCDR1           EDGEQ_REGISTER(0x400FC024u)
#define CCM_CDHIPR           EDGEQ_REGISTER(0x400FC048u)
#define CCM_CCGR3            EDGEQ_REGISTER(0x400FC074u)
#define CCM_CCGR6            EDGEQ_REGISTER(0x400FC080u)
#define CBCDR_PERIPH_SELECT  (1u << 25)
#define CBCDR_PERIPH2_FIELD  (7u << 27)
#define CBCDR_IPG_FIELD      (3u << 8)
#define CBCDR_IPG_BY_4       (3u << 8)
#define CBCDR_AHB_FIELD      (7u << 10)
#define CBCMR_PERIPH2_FIELD  (3u << 12)
#define CBCMR_PERIPH2_24_MHZ (1u << 12)
#define BUSY_AHB             (1u << 1)
#define BUSY_PERIPH2         (1u << 3)
#define BUSY_PERIPH          (1u << 5)
#define BUSY_ARM             (1u << 16)
#define CCGR3_LPUART6        (3u << 6)
#define CCGR6_DCDC           (3u << 6)
#define CSCDR1_UART_FIELD    0x7Fu
#define CSCDR1_UART_24_MHZ   (1u << 6)

#define MUX_AD_B0_02    EDGEQ_REGISTER(0x401F80C4u)
#define MUX_AD_B0_03    EDGEQ_REGISTER(0x401F80C8u)
#define LPUART6_RX_FROM EDGEQ_REGISTER(0x401F8550u)
#define MUX_LPUART6     2u
#define FROM_AD_B0_03   1u

#define LPUART6                0x40198000u
#define LPUART_BAUD            EDGEQ_REGISTER(LPUART6 + 0x10u)
#define LPUART_STAT            EDGEQ_REGISTER(LPUART6 + 0x14u)
#define LPUART_CTRL            EDGEQ_REGISTER(LPUART6 + 0x18u)
#define LPUART_DATA            EDGEQ_REGISTER(LPUART6 + 0x1Cu)
#define LPUART_FIFO            EDGEQ_REGISTER(LPUART6 + 0x28u)
#define STAT_TRANSMIT_EMPTY    (1u << 23)
#define STAT_TRANSMIT_COMPLETE (1u << 22)
#define STAT_RECEIVED          (1u << 21)
#define STAT_OVERRUN           (1u << 19)
#define CTRL_TRANSMIT_RECEIVE  (3u << 18)
#define FIFO_RECEIVE_TRANSMIT  (1u << 3 | 1u << 7)
#define UART_CLOCK_HZ          24000000u
#define MOST_SAMPLES           32u
#define LEAST_SAMPLES          8u

static void wait_idle(uint32_t busy) {
    while ((CCM_CDHIPR & busy) != 0) {
    }
}

static void raise_voltage(void) {
    CCM_CCGR6 |= CCGR6_DCDC;
    DCDC_VOLTAGE = (DCDC_VOLTAGE & ~VOLTAGE_FIELD) | VOLTAGE_1250_MV;
    while ((DCDC_STATUS & DCDC_SETTLED) == 0) {
    }
}

/* The core runs from the crystal while its PLL starts anew: 24 MHz * N / 2 / 2, peripherals a quarter of the core. */
static void start_clocks(void) {
    raise_voltage();
    CCM_CBCDR &= ~CBCDR_PERIPH2_FIELD;
    CCM_CBCMR = (CCM_CBCMR & ~CBCMR_PERIPH2_FIELD) | CBCMR_PERIPH2_24_MHZ;
    wait_idle(BUSY_PERIPH2);
    CCM_CBCDR |= CBCDR_PERIPH_SELECT;
    wait_idle(BUSY_PERIPH);
    PLL_ARM = PLL_POWER_DOWN;
    PLL_ARM = PLL_ENABLE | EDGEQ_CORE_HZ / 6000000u;
    while ((PLL_ARM & PLL_LOCKED) == 0) {
    }
    CCM_CACRR = 1;
    wait_idle(BUSY_ARM);
    CCM_CBCDR &= ~CBCDR_AHB_FIELD;
    wait_idle(BUSY_AHB);
    CCM_CBCDR = (CCM_CBCDR & ~CBCDR_IPG_FIELD) | CBCDR_IPG_BY_4;
    CCM_CBCDR &= ~CBCDR_PERIPH_SELECT;
    wait_idle(BUSY_PERIPH);
}

/* Samples of a bit and divider that come nearest to the rate. */
static uint32_t baud_setting(void) {
    uint32_t best = 0, least = UINT32_MAX;
    for (uint32_t samples = MOST_SAMPLES; samples >= LEAST_SAMPLES; --samples) {
        const uint32_t divider = (UART_CLOCK_HZ + samples * EDGEQ_BAUD / 2u) / (samples * EDGEQ_BAUD);
        const uint32_t ticks = divider * samples * EDGEQ_BAUD;
        const uint32_t off = ticks > UART_CLOCK_HZ ? ticks - UART_CLOCK_HZ : UART_CLOCK_HZ - ticks;
        if (divider != 0 && off < least) {
            least = off;
            best = (samples - 1u) << 24 | divider;
        }
    }
    return best;
}

static void start_uart(void) {
    CCM_CSCDR1 = (CCM_CSCDR1 & ~CSCDR1_UART_FIELD) | CSCDR1_UART_24_MHZ;
    CCM_CCGR3 |= CCGR3_LPUART6;
    MUX_AD_B0_02 = MUX_LPUART6;
    MUX_AD_B0_03 = MUX_LPUART6;
    LPUART6_RX_FROM = FROM_AD_B0_03;
    LPUART_CTRL = 0;
    LPUART_BAUD = baud_setting();
    LPUART_FIFO |= FIFO_RECEIVE_TRANSMIT;
    LPUART_CTRL = CTRL_TRANSMIT_RECEIVE;
}

void edgeq_port_start(void) {
    start_clocks();
    edgeq_caches_on();
    start_uart();
}

int32_t edgeq_port_read(void) {
    const uint32_t status = LPUART_STAT;
    if ((status & STAT_OVERRUN) != 0) {
        LPUART_STAT = STAT_OVERRUN;
    }
    return (status & STAT_RECEIVED) != 0 ? (int32_t)(LPUART_DATA & 0xFFu) : -1;
}

void edgeq_port_write(const uint8_t *bytes, uint32_t length) {
    for (uint32_t i = 0; i < length; ++i) {
        while ((LPUART_STAT & STAT_TRANSMIT_EMPTY) == 0) {
        }
        LPUART_DATA = bytes[i];
    }
}

void edgeq_port_info(edgeq_port_info_t *info) {
    edgeq_cycles_info(info, EDGEQ_CORE_HZ);
    info->capabilities = EDGEQ_INSTRUCTION_CACHE_ON | EDGEQ_DATA_CACHE_ON;
    edgeq_cortex_m_info(info);
}

void edgeq_port_reset(void) {
    while ((LPUART_STAT & STAT_TRANSMIT_COMPLETE) == 0) {
    }
    edgeq_cortex_m_reset();
}
