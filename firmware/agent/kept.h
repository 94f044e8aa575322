/* The record that outlives a restart (`edgeq_kept`): sealed by a checksum, opened once at the start. */
#ifndef EDGEQ_AGENT_KEPT_H
#define EDGEQ_AGENT_KEPT_H

#include <stdint.h>

void edgeq_kept_seal(void);
uint32_t edgeq_kept_open(void); /* why the last life ended, told once; a record that is not whole is cleared */

#endif
