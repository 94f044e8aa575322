/* The block by which the boot ROM knows an executable image (RP2350 data sheet, "Bootrom"): Arm, secure, vector table.
 */
#include <stdint.h>

extern const uint8_t edgeq_vectors[];

static const struct {
    uint32_t begin, image_type, vector_table_item;
    const void *vector_table;
    uint32_t last_item, next_block, end;
} block __attribute__((section(".boot_block"), used)) = {
    .begin = 0xFFFFDED3u,
    .image_type = 0x10210142u,
    .vector_table_item = 0x00000203u,
    .vector_table = edgeq_vectors,
    .last_item = 0x000003FFu,
    .next_block = 0,
    .end = 0xAB123579u,
};
