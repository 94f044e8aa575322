/* What the files of this port share: resets and PLLs (RP2040 data sheet 2.14 and 2.18). */
#ifndef EDGEQ_RP2_H
#define EDGEQ_RP2_H

#include "chip.h"
#include "cortex_m.h"

#define SET_BITS          0x2000u /* the aliases of a register at which writing sets bits, */
#define CLEAR_BITS        0x3000u /* and clears them */
#define RESETS_DONE       EDGEQ_REGISTER(RESETS + 8u)
#define PLL_CS(pll)       EDGEQ_REGISTER((pll) + 0x00u)
#define PLL_POWER_ON(pll) EDGEQ_REGISTER((pll) + CLEAR_BITS + 0x04u)
#define PLL_FBDIV(pll)    EDGEQ_REGISTER((pll) + 0x08u)
#define PLL_PRIM(pll)     EDGEQ_REGISTER((pll) + 0x0Cu)
#define PLL_LOCKED        (1u << 31)
#define PLL_CORE_AND_VCO  (1u << 0 | 1u << 5)
#define PLL_DIVIDERS      (1u << 3)

static inline void rp2_out_of_reset(uint32_t blocks) {
    EDGEQ_REGISTER(RESETS + CLEAR_BITS) = blocks;
    while ((RESETS_DONE & blocks) != blocks) {
    }
}

/* The crystal's frequency times `multiple`, divided as `dividers` (the register PRIM) says. */
static inline void rp2_start_pll(uint32_t pll, uint32_t block, uint32_t multiple, uint32_t dividers) {
    EDGEQ_REGISTER(RESETS + SET_BITS) = block;
    rp2_out_of_reset(block);
    PLL_CS(pll) = 1;
    PLL_FBDIV(pll) = multiple;
    PLL_POWER_ON(pll) = PLL_CORE_AND_VCO;
    while ((PLL_CS(pll) & PLL_LOCKED) == 0) {
    }
    PLL_PRIM(pll) = dividers;
    PLL_POWER_ON(pll) = PLL_DIVIDERS;
}

#endif
