/* What every Cortex-M port shares: registers of the core, start-up, faults, a cycle counter. */
#ifndef EDGEQ_CORTEX_M_H
#define EDGEQ_CORTEX_M_H

#include <stdint.h>

#include "agent.h"

#define EDGEQ_REGISTER(address) (*(volatile uint32_t *)(address))

/* The port's clocks and UART; runs before main, with .data and .bss in place. */
void edgeq_port_start(void);

/* Fills in spare RAM, stack and section sizes from the linker script, and what start-up and fault handler can do. */
void edgeq_cortex_m_info(edgeq_port_info_t *info);

/* SYSRESETREQ. */
void edgeq_cortex_m_reset(void);

#endif
