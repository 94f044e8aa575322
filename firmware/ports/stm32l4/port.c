/*
 * STM32L4R5 at up to 120 MHz: PLL of the internal 16 MHz oscillator, range 1 with boost, LPUART1 on PG7 and PG8 (the
 * ST-LINK's virtual port on NUCLEO-L4R5ZI), cycle counter.
 *
 * Only compiled and linked; has never run on hardware, registers not checked against RM0432.
 */
#include "cycles.h"
#include "gpio.h"
#include "usart_v2.h"

#define RCC          0x40021000u
#define RCC_CR       (RCC + 0x00u)
#define RCC_CFGR     (RCC + 0x08u)
#define RCC_PLLCFGR  (RCC + 0x0Cu)
#define RCC_AHB2ENR  (RCC + 0x4Cu)
#define RCC_APB1ENR1 (RCC + 0x58u)
#define RCC_APB1ENR2 (RCC + 0x5Cu)
#define PWR_CR2      0x40007004u
#define PWR_CR5      0x40007080u
#define FLASH_ACR    0x40022000u
#define GPIOG        0x48001800u
#define LPUART1      0x40008000u

#define CR_HSION                              (1u << 8)
#define CR_HSIRDY                             (1u << 10)
#define CR_PLLON                              (1u << 24)
#define CR_PLLRDY                             (1u << 25)
#define APB1_PWR                              (1u << 28)
#define CR2_PORT_G_POWERED                    (1u << 9)
#define CR5_NO_BOOST                          (1u << 8)
#define ACR_PREFETCH_AND_CACHES_5_WAIT_STATES (7u << 8 | 5u)
#define PLL_OF_HSI_BY_2                       (2u | 1u << 4)
#define PLL_R_ON                              (1u << 24)
#define CFGR_SWITCH_PLL                       3u
#define CFGR_AHB_BY_2                         (8u << 4)

/* VCO = 16 MHz / 2 * N, core = VCO / 2; over 80 MHz the bus clock steps up by way of one half. */
static void start_clocks(void) {
    const uint32_t n = EDGEQ_CORE_HZ / 4000000u;
    EDGEQ_REGISTER(RCC_APB1ENR1) |= APB1_PWR;
    EDGEQ_REGISTER(PWR_CR5) &= ~CR5_NO_BOOST;
    EDGEQ_REGISTER(RCC_CR) |= CR_HSION;
    wait_for(RCC_CR, CR_HSIRDY, CR_HSIRDY);
    EDGEQ_REGISTER(FLASH_ACR) = ACR_PREFETCH_AND_CACHES_5_WAIT_STATES;
    wait_for(FLASH_ACR, 15u, 5u);
    EDGEQ_REGISTER(RCC_PLLCFGR) = PLL_OF_HSI_BY_2 | n << 8 | PLL_R_ON;
    EDGEQ_REGISTER(RCC_CR) |= CR_PLLON;
    wait_for(RCC_CR, CR_PLLRDY, CR_PLLRDY);
    EDGEQ_REGISTER(RCC_CFGR) = CFGR_AHB_BY_2 | CFGR_SWITCH_PLL;
    wait_for(RCC_CFGR, 3u << 2, CFGR_SWITCH_PLL << 2);
    for (volatile uint32_t pause = 0; pause < 100u; ++pause) {
    }
    EDGEQ_REGISTER(RCC_CFGR) = CFGR_SWITCH_PLL;
}

void edgeq_port_start(void) {
    start_clocks();
    EDGEQ_REGISTER(PWR_CR2) |= CR2_PORT_G_POWERED;
    EDGEQ_REGISTER(RCC_AHB2ENR) |= 1u << 6;
    EDGEQ_REGISTER(RCC_APB1ENR2) |= 1u;
    gpio_alternate(GPIOG, 7, 8);
    gpio_alternate(GPIOG, 8, 8);
    /* LPUART: 256 clocks a step */
    usart_start(LPUART1, (uint32_t)((256ull * EDGEQ_CORE_HZ + EDGEQ_BAUD / 2u) / EDGEQ_BAUD));
}

int32_t edgeq_port_read(void) {
    return usart_read(LPUART1);
}

void edgeq_port_write(const uint8_t *bytes, uint32_t length) {
    usart_write(LPUART1, bytes, length);
}

void edgeq_port_info(edgeq_port_info_t *info) {
    edgeq_cycles_info(info, EDGEQ_CORE_HZ);
    info->capabilities = EDGEQ_INSTRUCTION_CACHE_ON | EDGEQ_DATA_CACHE_ON;
    edgeq_cortex_m_info(info);
}

void edgeq_port_reset(void) {
    usart_drain(LPUART1);
    edgeq_cortex_m_reset();
}
