/* The core's cycle counter is the agent's timer: dwt.c defines edgeq_port_timer_start, _stop and edgeq_port_ticks. */
#ifndef EDGEQ_DWT_H
#define EDGEQ_DWT_H

#include "cortex_m.h"

void edgeq_dwt_info(edgeq_port_info_t *info, uint32_t core_hz);

#endif
