/*
 * STM32U585 at up to 160 MHz: PLL1 of the internal 16 MHz oscillator, range 1 with boost, instruction cache on, USART1
 * on PA9 and PA10 (the ST-LINK's virtual port on B-U585I-IOT02A), cycle counter. TrustZone off, as delivered.
 *
 * Only compiled and linked; has never run on hardware, registers not checked against RM0456.
 */
#include "cycles.h"
#include "gpio.h"
#include "usart_v2.h"

#define RCC          0x46020C00u
#define RCC_CR       (RCC + 0x00u)
#define RCC_CFGR1    (RCC + 0x1Cu)
#define RCC_PLL1CFGR (RCC + 0x28u)
#define RCC_PLL1DIVR (RCC + 0x34u)
#define RCC_AHB2ENR1 (RCC + 0x8Cu)
#define RCC_AHB3ENR  (RCC + 0x94u)
#define RCC_APB2ENR  (RCC + 0xA4u)
#define PWR_VOSR     0x4602080Cu
#define FLASH_ACR    0x40022000u
#define ICACHE_CR    0x40030400u
#define GPIOA        0x42020000u
#define USART1       0x40013800u

#define CR_HSION                   (1u << 8)
#define CR_HSIRDY                  (1u << 10)
#define CR_PLL1ON                  (1u << 24)
#define CR_PLL1RDY                 (1u << 25)
#define AHB3_PWR                   (1u << 2)
#define VOSR_BOOST_READY           (1u << 14)
#define VOSR_READY                 (1u << 15)
#define VOSR_RANGE_1               (3u << 16)
#define VOSR_BOOST                 (1u << 18)
#define ACR_PREFETCH_4_WAIT_STATES (1u << 8 | 4u)
#define PLL1_OF_HSI                (2u | 3u << 2)
#define PLL1_R_ON                  (1u << 18)
#define CFGR1_SWITCH_PLL1          3u

/* VCO = 16 MHz * N, core = VCO / 2; the booster's clock is the PLL's input. */
static void start_clocks(void) {
    const uint32_t n = EDGEQ_CORE_HZ / 8000000u;
    EDGEQ_REGISTER(RCC_AHB3ENR) |= AHB3_PWR;
    EDGEQ_REGISTER(RCC_CR) |= CR_HSION;
    wait_for(RCC_CR, CR_HSIRDY, CR_HSIRDY);
    EDGEQ_REGISTER(PWR_VOSR) |= VOSR_RANGE_1;
    wait_for(PWR_VOSR, VOSR_READY, VOSR_READY);
    EDGEQ_REGISTER(RCC_PLL1CFGR) = PLL1_OF_HSI | PLL1_R_ON;
    EDGEQ_REGISTER(RCC_PLL1DIVR) = (n - 1u) | 1u << 9 | 1u << 16 | 1u << 24;
    EDGEQ_REGISTER(PWR_VOSR) |= VOSR_BOOST;
    wait_for(PWR_VOSR, VOSR_BOOST_READY, VOSR_BOOST_READY);
    EDGEQ_REGISTER(RCC_CR) |= CR_PLL1ON;
    wait_for(RCC_CR, CR_PLL1RDY, CR_PLL1RDY);
    EDGEQ_REGISTER(FLASH_ACR) = ACR_PREFETCH_4_WAIT_STATES;
    wait_for(FLASH_ACR, 15u, 4u);
    EDGEQ_REGISTER(RCC_CFGR1) = CFGR1_SWITCH_PLL1;
    wait_for(RCC_CFGR1, 3u << 2, CFGR1_SWITCH_PLL1 << 2);
    EDGEQ_REGISTER(ICACHE_CR) |= 1u;
}

void edgeq_port_start(void) {
    start_clocks();
    EDGEQ_REGISTER(RCC_AHB2ENR1) |= 1u;
    EDGEQ_REGISTER(RCC_APB2ENR) |= 1u << 14;
    gpio_alternate(GPIOA, 9, 7);
    gpio_alternate(GPIOA, 10, 7);
    usart_start(USART1, (EDGEQ_CORE_HZ + EDGEQ_BAUD / 2u) / EDGEQ_BAUD);
}

int32_t edgeq_port_read(void) {
    return usart_read(USART1);
}

void edgeq_port_write(const uint8_t *bytes, uint32_t length) {
    usart_write(USART1, bytes, length);
}

void edgeq_port_info(edgeq_port_info_t *info) {
    edgeq_cycles_info(info, EDGEQ_CORE_HZ);
    info->capabilities = EDGEQ_INSTRUCTION_CACHE_ON;
    edgeq_cortex_m_info(info);
}

void edgeq_port_reset(void) {
    usart_drain(USART1);
    edgeq_cortex_m_reset();
}
