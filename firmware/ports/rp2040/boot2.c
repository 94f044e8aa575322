/*
 * Second boot stage: the ROM copies these 252 bytes into RAM if the checksum behind them is right (the toolchain writes
 * it) and runs them. Sets the flash up for execution in place by plain serial reads, which every flash chip knows, and
 * starts the image behind.
 */
#include "cortex_m.h"

void edgeq_boot2(void);

__attribute__((naked, section(".boot2"), used)) void edgeq_boot2(void) {
    __asm volatile(".syntax unified\n"
                   "ldr r3, =0x18000000\n" /* SSI */
                   "movs r1, #0\n"
                   "str r1, [r3, #0x08]\n" /* SSIENR: off */
                   "movs r1, #4\n"
                   "str r1, [r3, #0x14]\n" /* BAUDR: core clock / 4 */
                   "ldr r1, =0x001F0300\n"
                   "str r1, [r3, #0x00]\n" /* CTRLR0: 32-bit frames, EEPROM read */
                   "ldr r1, =0x03000218\n"
                   "ldr r0, =0x180000F4\n"
                   "str r1, [r0]\n" /* SPI_CTRLR0: command 0x03, 8 bits, 24 bits of address */
                   "movs r1, #0\n"
                   "str r1, [r3, #0x04]\n" /* CTRLR1: one frame */
                   "movs r1, #1\n"
                   "str r1, [r3, #0x08]\n" /* SSIENR: on */
                   "ldr r0, =edgeq_vectors\n"
                   "ldr r1, =0xE000ED08\n"
                   "str r0, [r1]\n" /* VTOR */
                   "ldmia r0!, {r1, r2}\n"
                   "msr msp, r1\n"
                   "bx r2\n"
                   ".ltorg\n"
                   ".balign 256, 0\n");
}
