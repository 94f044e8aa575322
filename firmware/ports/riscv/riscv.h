/* What every RISC-V port shares: start-up and faults. */
#ifndef EDGEQ_RISCV_H
#define EDGEQ_RISCV_H

#include <stdint.h>

#include "agent.h"

#define EDGEQ_REGISTER(address) (*(volatile uint32_t *)(address))

/* The port's clocks and UART; runs before main, with .data and .bss in place. */
void edgeq_port_start(void);

/* Restarts the board, with nothing under way on the line that matters. */
void edgeq_port_restart(void);

/* Fills in spare RAM, stack and section sizes from the linker script, and what start-up and fault handler can do. */
void edgeq_riscv_info(edgeq_port_info_t *info);

#endif
