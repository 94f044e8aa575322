/* What outlives a restart. */
#include "kept.h"

#include <string.h>

#include "agent.h"

static uint32_t kept_crc(void) {
    return ~edgeq_crc32(EDGEQ_CRC_START, (const uint8_t *)&edgeq_kept, sizeof edgeq_kept - sizeof(uint32_t));
}

void edgeq_kept_seal(void) {
    edgeq_kept.crc = kept_crc();
}

uint32_t edgeq_kept_open(void) {
    if (kept_crc() != edgeq_kept.crc) {
        memset(&edgeq_kept, 0, sizeof edgeq_kept);
    }
    const uint32_t reason = edgeq_kept.reset_reason;
    edgeq_kept.boot_count++;
    edgeq_kept.reset_reason = EDGEQ_RESET_POWER;
    edgeq_kept_seal();
    return reason;
}
