/* Addresses of RP2350. */
#ifndef EDGEQ_RP2_CHIP_H
#define EDGEQ_RP2_CHIP_H

#define CLOCKS           0x40010000u
#define RESETS           0x40020000u
#define IO_BANK0         0x40028000u
#define PADS_BANK0       0x40038000u
#define XOSC             0x40048000u
#define PLL_SYS          0x40050000u
#define UART0            0x40070000u
#define RESET_IO_BANK0   (1u << 6)
#define RESET_PADS_BANK0 (1u << 9)
#define RESET_PLL_SYS    (1u << 14)
#define RESET_UART0      (1u << 26)

#endif
