/*
 * STM32F405/407/446: PLL of the internal 16 MHz oscillator, USART2 on PA2 and PA3 (the ST-LINK's virtual port on
 * Nucleo boards; the Discovery board needs a serial adapter there), cycle counter.
 *
 * The USART driver runs on QEMU's STM32F405 (port netduinoplus2); clocks and pins are only compiled and linked, have
 * never run on hardware, and are not checked against RM0090 and RM0390.
 */
#include "cycles.h"
#include "gpio.h"
#include "usart_v1.h"

#define RCC         0x40023800u
#define RCC_CR      (RCC + 0x00u)
#define RCC_PLLCFGR (RCC + 0x04u)
#define RCC_CFGR    (RCC + 0x08u)
#define RCC_AHB1ENR (RCC + 0x30u)
#define RCC_APB1ENR (RCC + 0x40u)
#define PWR_CR      0x40007000u
#define PWR_CSR     0x40007004u
#define FLASH_ACR   0x40023C00u
#define GPIOA       0x40020000u
#define USART2      0x40004400u

#define CR_PLLON                              (1u << 24)
#define CR_PLLRDY                             (1u << 25)
#define APB1_USART2                           (1u << 17)
#define APB1_PWR                              (1u << 28)
#define OVER_DRIVE                            (1u << 16)
#define OVER_DRIVE_SWITCH                     (1u << 17)
#define ACR_PREFETCH_AND_CACHES_5_WAIT_STATES (7u << 8 | 5u)
#define CFGR_APB1_BY_4_APB2_BY_2              (5u << 10 | 4u << 13)
#define CFGR_SWITCH_PLL                       2u
#define WITHOUT_OVER_DRIVE_HZ                 168000000u
#define APB1_HZ                               (EDGEQ_CORE_HZ / 4u)

/* VCO = 16 MHz / 8 * N, core = VCO / 2. Voltage scale 1 is the value after reset. */
static void start_clocks(void) {
    const uint32_t n = EDGEQ_CORE_HZ / 1000000u;
    EDGEQ_REGISTER(RCC_APB1ENR) |= APB1_PWR;
    EDGEQ_REGISTER(FLASH_ACR) = ACR_PREFETCH_AND_CACHES_5_WAIT_STATES;
    EDGEQ_REGISTER(RCC_PLLCFGR) = 8u | n << 6 | 8u << 24;
    EDGEQ_REGISTER(RCC_CR) |= CR_PLLON;
    wait_for(RCC_CR, CR_PLLRDY, CR_PLLRDY);
    if (EDGEQ_CORE_HZ > WITHOUT_OVER_DRIVE_HZ) {
        EDGEQ_REGISTER(PWR_CR) |= OVER_DRIVE;
        wait_for(PWR_CSR, OVER_DRIVE, OVER_DRIVE);
        EDGEQ_REGISTER(PWR_CR) |= OVER_DRIVE_SWITCH;
        wait_for(PWR_CSR, OVER_DRIVE_SWITCH, OVER_DRIVE_SWITCH);
    }
    EDGEQ_REGISTER(RCC_CFGR) = CFGR_APB1_BY_4_APB2_BY_2 | CFGR_SWITCH_PLL;
    wait_for(RCC_CFGR, 3u << 2, CFGR_SWITCH_PLL << 2);
}

void edgeq_port_start(void) {
    start_clocks();
    EDGEQ_REGISTER(RCC_AHB1ENR) |= 1u;
    EDGEQ_REGISTER(RCC_APB1ENR) |= APB1_USART2;
    gpio_alternate(GPIOA, 2, 7);
    gpio_alternate(GPIOA, 3, 7);
    usart_start(USART2, (APB1_HZ + EDGEQ_BAUD / 2u) / EDGEQ_BAUD);
}

int32_t edgeq_port_read(void) {
    return usart_read(USART2);
}

void edgeq_port_write(const uint8_t *bytes, uint32_t length) {
    usart_write(USART2, bytes, length);
}

void edgeq_port_info(edgeq_port_info_t *info) {
    edgeq_cycles_info(info, EDGEQ_CORE_HZ);
    info->capabilities = EDGEQ_INSTRUCTION_CACHE_ON | EDGEQ_DATA_CACHE_ON;
    edgeq_cortex_m_info(info);
}

void edgeq_port_reset(void) {
    usart_drain(USART2);
    edgeq_cortex_m_reset();
}
