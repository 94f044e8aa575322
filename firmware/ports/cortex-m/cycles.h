/*
 * A count of the core's cycles as the agent's timer. Either dwt.c or, on cores without DWT, systick.c defines this, and
 * edgeq_port_timer_start, edgeq_port_timer_stop and edgeq_port_ticks.
 */
#ifndef EDGEQ_CYCLES_H
#define EDGEQ_CYCLES_H

#include "cortex_m.h"

void edgeq_cycles_info(edgeq_port_info_t *info, uint32_t core_hz);

#endif
