/* Instruction and data cache of Cortex-M7. */
#ifndef EDGEQ_CACHES_H
#define EDGEQ_CACHES_H

#include "cortex_m.h"

#define SCB_CCR               EDGEQ_REGISTER(0xE000ED14u)
#define SCB_CCSIDR            EDGEQ_REGISTER(0xE000ED80u)
#define SCB_CSSELR            EDGEQ_REGISTER(0xE000ED84u)
#define SCB_ICIALLU           EDGEQ_REGISTER(0xE000EF50u)
#define SCB_DCISW             EDGEQ_REGISTER(0xE000EF60u)
#define SCB_DCCSW             EDGEQ_REGISTER(0xE000EF6Cu)
#define CCR_DATA_CACHE        (1u << 16)
#define CCR_INSTRUCTION_CACHE (1u << 17)

static inline void edgeq_barrier(void) {
    __asm volatile("dsb\n isb" ::: "memory");
}

/* Lines of 32 bytes, four ways, as many sets as CCSIDR says: all are invalid after reset only once invalidated. */
static inline void edgeq_caches_on(void) {
    SCB_ICIALLU = 0;
    SCB_CSSELR = 0;
    edgeq_barrier();
    const uint32_t sets = (SCB_CCSIDR >> 13) & 0x7FFFu;
    const uint32_t ways = (SCB_CCSIDR >> 3) & 0x3FFu;
    for (uint32_t set = 0; set <= sets; ++set) {
        for (uint32_t way = 0; way <= ways; ++way) {
            SCB_DCISW = way << 30 | set << 5;
        }
    }
    edgeq_barrier();
    SCB_CCR |= CCR_INSTRUCTION_CACHE | CCR_DATA_CACHE;
    edgeq_barrier();
}

/* Writes back what only the data cache has: a restart would lose it. */
static inline void edgeq_data_cache_clean(void) {
    if ((SCB_CCR & CCR_DATA_CACHE) == 0) {
        return;
    }
    const uint32_t sets = (SCB_CCSIDR >> 13) & 0x7FFFu;
    const uint32_t ways = (SCB_CCSIDR >> 3) & 0x3FFu;
    for (uint32_t set = 0; set <= sets; ++set) {
        for (uint32_t way = 0; way <= ways; ++way) {
            SCB_DCCSW = way << 30 | set << 5;
        }
    }
    edgeq_barrier();
}

#endif
