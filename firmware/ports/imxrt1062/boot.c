/*
 * What the boot ROM of i.MX RT1062 looks for: how the flash is read (a FlexSPI configuration block for a serial NOR
 * flash of 8 MB, at offset 0), where the program is (image vector table at 0x1000, boot data), and the first
 * instructions.
 *
 * Fields and values after PaulStoffregen/cores teensy4/bootdata.c and startup.c. Has never run on hardware.
 */
#include <stdint.h>

#define LUT(operation, pads, operand) ((uint32_t)(operation) << 10 | (uint32_t)(pads) << 8 | (operand))
#define LUT_TWO(first, second)        ((first) | (second) << 16)
enum { COMMAND = 1, ADDRESS = 2, MODE8 = 7, READ = 9, DUMMY = 12, JUMP_ON_SELECT = 31 };
enum { ONE_PAD, FOUR_PADS = 2 };

#define CONFIGURATION_TAG     0x42464346u /* "FCFB" */
#define CONFIGURATION_VERSION 0x56010000u
#define SETUP_HOLD_LOOP_BACK  0x00030301u /* three cycles of hold and set-up; sampled by the strobe's own pad */
#define FOUR_PADS_133_MHZ_NOR 0x00080401u
#define FLASH_BYTES           0x00800000u
#define PAGE_BYTES            256u
#define SECTOR_BYTES          4096u
#define BLOCK_BYTES           0x10000u
#define FLASH_START           0x60000000u
#define TABLE_HEADER          0x432000D1u

extern const uint8_t edgeq_boot_image_bytes[];
void edgeq_boot_entry(void);

const uint32_t edgeq_boot_flash[128] __attribute__((section(".boot_flash"), used)) = {
    [0x00 / 4] = CONFIGURATION_TAG,
    [0x04 / 4] = CONFIGURATION_VERSION,
    [0x0C / 4] = SETUP_HOLD_LOOP_BACK,
    [0x44 / 4] = FOUR_PADS_133_MHZ_NOR,
    [0x50 / 4] = FLASH_BYTES,
    /* Fast read on four lines: 24 bits of address, mode 0x20, four dummy cycles. */
    [0x80 / 4] = LUT_TWO(LUT(COMMAND, ONE_PAD, 0xEBu), LUT(ADDRESS, FOUR_PADS, 24u)),
    [0x84 / 4] = LUT_TWO(LUT(MODE8, FOUR_PADS, 0x20u), LUT(DUMMY, FOUR_PADS, 4u)),
    [0x88 / 4] = LUT_TWO(LUT(READ, FOUR_PADS, 4u), LUT(JUMP_ON_SELECT, ONE_PAD, 1u)),
    [0x1C0 / 4] = PAGE_BYTES,
    [0x1C4 / 4] = SECTOR_BYTES,
    [0x1C8 / 4] = 1,
    [0x1D0 / 4] = BLOCK_BYTES,
};

const uint32_t edgeq_boot_data[3]
    __attribute__((section(".boot_data"), used)) = {FLASH_START, (uint32_t)edgeq_boot_image_bytes, 0};

const uint32_t edgeq_boot_table[8] __attribute__((section(".boot_table"), used)) = {
    TABLE_HEADER, (uint32_t)edgeq_boot_entry, 0, 0, (uint32_t)edgeq_boot_data, (uint32_t)edgeq_boot_table, 0, 0};

/*
 * Fifteen of the sixteen banks of 32 KiB become data memory without wait states, one is left for instructions: before
 * anything touches the stack, which lies there.
 */
__attribute__((naked, used, section(".boot_entry"))) void edgeq_boot_entry(void) {
    __asm volatile("ldr r0, =0x400AC000\n" /* IOMUXC_GPR */
                   "ldr r1, =0xAAAAAAAB\n"
                   "str r1, [r0, #0x44]\n" /* GPR17: two bits a bank, 2 data, 3 instructions */
                   "ldr r1, =0x00200007\n"
                   "str r1, [r0, #0x40]\n" /* GPR16: banks as GPR17 says, both memories on */
                   "ldr r1, =0x00AA0000\n"
                   "str r1, [r0, #0x38]\n" /* GPR14: both may reach to 512 KiB */
                   "dsb\n isb\n"
                   "ldr r0, =edgeq_stack_top\n"
                   "mov sp, r0\n"
                   "ldr r0, =edgeq_reset_handler\n"
                   "bx r0\n"
                   ".ltorg\n");
}
