/*
 * RP2040 and RP2350: crystal of 12 MHz, PLL, cycle counter. The line to the host is uart.c or, on RP2040, usb.c, as the
 * board's profile says; chip.h has the addresses.
 *
 * Only compiled and linked (the tests check boot stage and image block); has never run on hardware, registers not
 * checked against the RP2040 and RP2350 data sheets.
 */
#include "cycles.h"
#include "rp2.h"
#include "serial.h"

#define XOSC_CTRL           EDGEQ_REGISTER(XOSC + 0x00u)
#define XOSC_STATUS         EDGEQ_REGISTER(XOSC + 0x04u)
#define XOSC_STARTUP        EDGEQ_REGISTER(XOSC + 0x0Cu)
#define XOSC_1_TO_15_MHZ_ON (0xFABu << 12 | 0xAA0u)
#define XOSC_1_MS           47u /* times 256 periods */
#define STABLE              (1u << 31)
#define CLK_REF_CTRL        EDGEQ_REGISTER(CLOCKS + 0x30u)
#define CLK_REF_SELECTED    EDGEQ_REGISTER(CLOCKS + 0x38u)
#define CLK_SYS_CTRL        EDGEQ_REGISTER(CLOCKS + 0x3Cu)
#define CLK_SYS_SELECTED    EDGEQ_REGISTER(CLOCKS + 0x44u)
#define CLK_PERI_CTRL       EDGEQ_REGISTER(CLOCKS + 0x48u)
#define REF_IS_XOSC         2u
#define SYS_IS_PLL          1u
#define PERI_ON             (1u << 11)

/* VCO = 12 MHz * 125 = 1,500 MHz; core = VCO / (FIRST * 2). */
#define VCO_BY_CRYSTAL 125u
#define FIRST_DIVIDER  (1500000000u / EDGEQ_CORE_HZ / 2u)

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
    rp2_start_pll(PLL_SYS, RESET_PLL_SYS, VCO_BY_CRYSTAL, FIRST_DIVIDER << 16 | 2u << 12);
    CLK_SYS_CTRL = SYS_IS_PLL;
    while (CLK_SYS_SELECTED != 1u << SYS_IS_PLL) {
    }
    CLK_PERI_CTRL = PERI_ON;
}

void edgeq_port_start(void) {
    start_clocks();
    serial_start();
}

void edgeq_port_info(edgeq_port_info_t *info) {
    edgeq_cycles_info(info, EDGEQ_CORE_HZ);
    info->capabilities = EDGEQ_INSTRUCTION_CACHE_ON;
    edgeq_cortex_m_info(info);
}

void edgeq_port_reset(void) {
    serial_drain();
    edgeq_cortex_m_reset();
}
