/* Cycles by SysTick, for Cortex-M0 and M0+: 24 bits that count down, extended by an interrupt (some 30 cycles in 2^24).
 */
#include "cycles.h"

#define SYST_CSR                    EDGEQ_REGISTER(0xE000E010u)
#define SYST_RVR                    EDGEQ_REGISTER(0xE000E014u)
#define SYST_CVR                    EDGEQ_REGISTER(0xE000E018u)
#define CSR_ON_INTERRUPT_CORE_CLOCK 7u
#define TOP                         0x00FFFFFFu

static volatile uint32_t wraps;

void edgeq_systick_handler(void);

void edgeq_systick_handler(void) {
    wraps = wraps + 1u;
}

void edgeq_port_timer_start(void) {
    SYST_CSR = 0;
    wraps = 0;
    SYST_RVR = TOP;
    SYST_CVR = 0;
    SYST_CSR = CSR_ON_INTERRUPT_CORE_CLOCK;
}

void edgeq_port_timer_stop(void) {
    SYST_CSR = 0;
}

uint64_t edgeq_port_ticks(void) {
    uint32_t before, value;
    do {
        before = wraps;
        value = SYST_CVR;
    } while (before != wraps);
    return (uint64_t)before << 24 | (TOP - value);
}

void edgeq_cycles_info(edgeq_port_info_t *info, uint32_t core_hz) {
    info->timer_kind = EDGEQ_TIMER_CYCLES;
    info->timer_resolution = 1;
    info->timer_hz = core_hz;
    info->core_hz = core_hz;
    info->progress_ticks = core_hz / 4u;
}
