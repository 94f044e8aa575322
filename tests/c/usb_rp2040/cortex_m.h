/* In place of the core's: registers of a controller in memory (bus.c). */
#ifndef EDGEQ_CORTEX_M_H
#define EDGEQ_CORTEX_M_H

#include <stdint.h>

volatile uint32_t *register_at(uint32_t address);

#define EDGEQ_REGISTER(address) (*register_at(address))

#endif
