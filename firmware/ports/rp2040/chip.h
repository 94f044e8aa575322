/* Addresses of RP2040. */
#ifndef EDGEQ_RP2_CHIP_H
#define EDGEQ_RP2_CHIP_H

#define CLOCKS           0x40008000u
#define RESETS           0x4000C000u
#define IO_BANK0         0x40014000u
#define PADS_BANK0       0x4001C000u
#define XOSC             0x40024000u
#define PLL_SYS          0x40028000u
#define PLL_USB          0x4002C000u
#define UART0            0x40034000u
#define USB_MEMORY       0x50100000u
#define USB              0x50110000u
#define RESET_IO_BANK0   (1u << 5)
#define RESET_PADS_BANK0 (1u << 8)
#define RESET_PLL_SYS    (1u << 12)
#define RESET_PLL_USB    (1u << 13)
#define RESET_UART0      (1u << 22)
#define RESET_USB        (1u << 24)

#endif
