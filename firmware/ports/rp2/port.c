/*
 * RP2040 and RP2350: crystal of 12 MHz, PLL, UART0 on GP0 and GP1, where a serial adapter or debug probe is connected.
 * chip.h has the addresses.
 *
 * Only compiled and linked (the tests check boot stage and image block); has never run on hardware, registers not
 * checked against the RP2040 and RP2350 data sheets.
 */
#include "chip.h"
#include "cycles.h"

#define CLEAR_BITS             0x3000u /* the alias of a register at which writing clears bits */
#define RESETS_DONE            (RESETS + 8u)
#define XOSC_CTRL              EDGEQ_REGISTER(XOSC + 0x00u)
#define XOSC_STATUS            EDGEQ_REGISTER(XOSC + 0x04u)
#define XOSC_STARTUP           EDGEQ_REGISTER(XOSC + 0x0Cu)
#define XOSC_1_TO_15_MHZ_ON    (0xFABu << 12 | 0xAA0u)
#define XOSC_1_MS              47u /* times 256 periods */
#define STABLE                 (1u << 31)
#define PLL_CS                 EDGEQ_REGISTER(PLL_SYS + 0x00u)
#define PLL_PWR_CLEAR          EDGEQ_REGISTER(PLL_SYS + CLEAR_BITS + 0x04u)
#define PLL_FBDIV              EDGEQ_REGISTER(PLL_SYS + 0x08u)
#define PLL_PRIM               EDGEQ_REGISTER(PLL_SYS + 0x0Cu)
#define PLL_POWER_AND_VCO      (1u << 0 | 1u << 5)
#define PLL_DIVIDERS           (1u << 3)
#define CLK_REF_CTRL           EDGEQ_REGISTER(CLOCKS + 0x30u)
#define CLK_REF_SELECTED       EDGEQ_REGISTER(CLOCKS + 0x38u)
#define CLK_SYS_CTRL           EDGEQ_REGISTER(CLOCKS + 0x3Cu)
#define CLK_SYS_SELECTED       EDGEQ_REGISTER(CLOCKS + 0x44u)
#define CLK_PERI_CTRL          EDGEQ_REGISTER(CLOCKS + 0x48u)
#define REF_IS_XOSC            2u
#define SYS_IS_PLL             1u
#define PERI_ON                (1u << 11)
#define UART_DR                EDGEQ_REGISTER(UART0 + 0x00u)
#define UART_FR                EDGEQ_REGISTER(UART0 + 0x18u)
#define UART_IBRD              EDGEQ_REGISTER(UART0 + 0x24u)
#define UART_FBRD              EDGEQ_REGISTER(UART0 + 0x28u)
#define UART_LCR               EDGEQ_REGISTER(UART0 + 0x2Cu)
#define UART_CR                EDGEQ_REGISTER(UART0 + 0x30u)
#define FR_BUSY                (1u << 3)
#define FR_RECEIVE_EMPTY       (1u << 4)
#define FR_TRANSMIT_FULL       (1u << 5)
#define LCR_8_BITS_FIFO        (3u << 5 | 1u << 4)
#define CR_ON_TRANSMIT_RECEIVE (1u << 0 | 1u << 8 | 1u << 9)
#define PAD_INPUT_PULL_UP      0x5Au
#define FUNCTION_UART          2u

/* VCO = 12 MHz * 125 = 1,500 MHz; core = VCO / (FIRST * 2). */
#define VCO_BY_CRYSTAL 125u
#define FIRST_DIVIDER  (1500000000u / EDGEQ_CORE_HZ / 2u)

static void out_of_reset(uint32_t blocks) {
    EDGEQ_REGISTER(RESETS + CLEAR_BITS) = blocks;
    while ((EDGEQ_REGISTER(RESETS_DONE) & blocks) != blocks) {
    }
}

static void start_clocks(void) {
    XOSC_STARTUP = XOSC_1_MS;
    XOSC_CTRL = XOSC_1_TO_15_MHZ_ON;
    while ((XOSC_STATUS & STABLE) == 0) {
    }
    CLK_SYS_CTRL = 0;
    while (CLK_SYS_SELECTED != 1u << 0) {
    }
    CLK_REF_CTRL = REF_IS_XOSC;
    while (CLK_REF_SELECTED != 1u << REF_IS_XOSC) {
    }
    EDGEQ_REGISTER(RESETS) |= RESET_PLL_SYS;
    out_of_reset(RESET_PLL_SYS);
    PLL_CS = 1;
    PLL_FBDIV = VCO_BY_CRYSTAL;
    PLL_PWR_CLEAR = PLL_POWER_AND_VCO;
    while ((PLL_CS & STABLE) == 0) {
    }
    PLL_PRIM = FIRST_DIVIDER << 16 | 2u << 12;
    PLL_PWR_CLEAR = PLL_DIVIDERS;
    CLK_SYS_CTRL = SYS_IS_PLL;
    while (CLK_SYS_SELECTED != 1u << SYS_IS_PLL) {
    }
    CLK_PERI_CTRL = PERI_ON;
}

void edgeq_port_start(void) {
    start_clocks();
    out_of_reset(RESET_IO_BANK0 | RESET_PADS_BANK0 | RESET_UART0);
    for (uint32_t pin = 0; pin < 2; ++pin) {
        EDGEQ_REGISTER(PADS_BANK0 + 4u + 4u * pin) = PAD_INPUT_PULL_UP;
        EDGEQ_REGISTER(IO_BANK0 + 4u + 8u * pin) = FUNCTION_UART;
    }
    /* in 1/64 of the divider, rounded */
    const uint32_t divider = (4u * EDGEQ_CORE_HZ + EDGEQ_BAUD / 2u) / EDGEQ_BAUD;
    UART_IBRD = divider >> 6;
    UART_FBRD = divider & 63u;
    UART_LCR = LCR_8_BITS_FIFO;
    UART_CR = CR_ON_TRANSMIT_RECEIVE;
}

int32_t edgeq_port_read(void) {
    return (UART_FR & FR_RECEIVE_EMPTY) == 0 ? (int32_t)(UART_DR & 0xFFu) : -1;
}

void edgeq_port_write(const uint8_t *bytes, uint32_t length) {
    for (uint32_t i = 0; i < length; ++i) {
        while ((UART_FR & FR_TRANSMIT_FULL) != 0) {
        }
        UART_DR = bytes[i];
    }
}

void edgeq_port_info(edgeq_port_info_t *info) {
    edgeq_cycles_info(info, EDGEQ_CORE_HZ);
    info->capabilities = EDGEQ_INSTRUCTION_CACHE_ON;
    edgeq_cortex_m_info(info);
}

void edgeq_port_reset(void) {
    while ((UART_FR & FR_BUSY) != 0) {
    }
    edgeq_cortex_m_reset();
}
