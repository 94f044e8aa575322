/* The core's cycle counter (DWT), of every Cortex-M but M0 and M0+. */
#include "cycles.h"

#define DEMCR        EDGEQ_REGISTER(0xE000EDFCu)
#define DWT_CTRL     EDGEQ_REGISTER(0xE0001000u)
#define DWT_CYCCNT   EDGEQ_REGISTER(0xE0001004u)
#define DWT_LAR      EDGEQ_REGISTER(0xE0001FB0u) /* a lock that only Cortex-M7 has */
#define DEMCR_TRCENA (1u << 24)
#define LAR_UNLOCK   0xC5ACCE55u

static uint32_t last_value;
static uint64_t counted;

void edgeq_port_timer_start(void) {
    DEMCR |= DEMCR_TRCENA;
    DWT_LAR = LAR_UNLOCK;
    DWT_CYCCNT = 0;
    DWT_CTRL |= 1u;
    last_value = DWT_CYCCNT;
    counted = 0;
}

void edgeq_port_timer_stop(void) {
    DWT_CTRL &= ~1u;
}

uint64_t edgeq_port_ticks(void) {
    const uint32_t value = DWT_CYCCNT;
    counted += value - last_value;
    last_value = value;
    return counted;
}

void edgeq_cycles_info(edgeq_port_info_t *info, uint32_t core_hz) {
    info->timer_kind = EDGEQ_TIMER_CYCLES;
    info->timer_resolution = 1;
    info->timer_hz = core_hz;
    info->core_hz = core_hz;
    info->progress_ticks = core_hz / 4u;
}
