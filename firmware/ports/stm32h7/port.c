/*
 * STM32H743/H747 at up to 400 MHz: PLL1 of the internal 64 MHz oscillator, voltage scale 1 from the LDO, caches on,
 * USART3 on PD8 and PD9 (the ST-LINK's virtual port on NUCLEO-H743ZI), cycle counter.
 *
 * Only compiled and linked; has never run on hardware, registers not checked against RM0433.
 */
#include "caches.h"
#include "cycles.h"
#include "gpio.h"
#include "usart_v2.h"

#define RCC           0x58024400u
#define RCC_CR        (RCC + 0x00u)
#define RCC_CFGR      (RCC + 0x10u)
#define RCC_D1CFGR    (RCC + 0x18u)
#define RCC_D2CFGR    (RCC + 0x1Cu)
#define RCC_D3CFGR    (RCC + 0x20u)
#define RCC_PLLCKSELR (RCC + 0x28u)
#define RCC_PLLCFGR   (RCC + 0x2Cu)
#define RCC_PLL1DIVR  (RCC + 0x30u)
#define RCC_AHB2ENR   (RCC + 0xDCu)
#define RCC_AHB4ENR   (RCC + 0xE0u)
#define RCC_APB1LENR  (RCC + 0xE8u)
#define PWR_CSR1      0x58024804u
#define PWR_CR3       0x5802480Cu
#define PWR_D3CR      0x58024818u
#define FLASH_ACR     0x52002000u
#define GPIOD         0x58020C00u
#define USART3        0x40004800u

#define CR_PLL1ON                       (1u << 24)
#define CR_PLL1RDY                      (1u << 25)
#define CR3_LDO                         2u
#define VOLTAGE_READY                   (1u << 13)
#define D3CR_SCALE_1                    (3u << 14)
#define ACR_2_WAIT_STATES_TO_210_MHZ    (2u << 4 | 2u)
#define PLL1_OF_HSI_BY_4                (4u << 4)
#define PLL1_INPUT_8_TO_16_MHZ          (3u << 2)
#define PLL1_P_ON                       (1u << 16)
#define D1_CORE_BY_1_BUS_BY_2_APB3_BY_2 (8u | 4u << 4)
#define APB_BY_2                        (4u << 4)
#define BOTH_APB_BY_2                   (4u << 4 | 4u << 8)
#define CFGR_SWITCH_PLL1                3u
#define AHB2_SRAM1_TO_3                 (7u << 29)
#define APB1_HZ                         (EDGEQ_CORE_HZ / 4u)

/* VCO = 64 MHz / 4 * N, core = VCO / 2, buses core / 2, peripherals core / 4. */
static void start_clocks(void) {
    const uint32_t n = EDGEQ_CORE_HZ / 8000000u;
    EDGEQ_REGISTER(PWR_CR3) = CR3_LDO;
    wait_for(PWR_CSR1, VOLTAGE_READY, VOLTAGE_READY);
    EDGEQ_REGISTER(PWR_D3CR) = D3CR_SCALE_1;
    wait_for(PWR_D3CR, VOLTAGE_READY, VOLTAGE_READY);
    EDGEQ_REGISTER(FLASH_ACR) = ACR_2_WAIT_STATES_TO_210_MHZ;
    wait_for(FLASH_ACR, 15u, 2u);
    EDGEQ_REGISTER(RCC_D1CFGR) = D1_CORE_BY_1_BUS_BY_2_APB3_BY_2;
    EDGEQ_REGISTER(RCC_D2CFGR) = BOTH_APB_BY_2;
    EDGEQ_REGISTER(RCC_D3CFGR) = APB_BY_2;
    EDGEQ_REGISTER(RCC_PLLCKSELR) = PLL1_OF_HSI_BY_4;
    EDGEQ_REGISTER(RCC_PLLCFGR) = PLL1_INPUT_8_TO_16_MHZ | PLL1_P_ON;
    EDGEQ_REGISTER(RCC_PLL1DIVR) = (n - 1u) | 1u << 9 | 1u << 16 | 1u << 24;
    EDGEQ_REGISTER(RCC_CR) |= CR_PLL1ON;
    wait_for(RCC_CR, CR_PLL1RDY, CR_PLL1RDY);
    EDGEQ_REGISTER(RCC_CFGR) = CFGR_SWITCH_PLL1;
    wait_for(RCC_CFGR, 7u << 3, CFGR_SWITCH_PLL1 << 3);
}

void edgeq_port_start(void) {
    start_clocks();
    edgeq_caches_on();
    EDGEQ_REGISTER(RCC_AHB2ENR) |= AHB2_SRAM1_TO_3; /* off after a reset; an arena may lie there */
    EDGEQ_REGISTER(RCC_AHB4ENR) |= 1u << 3;
    EDGEQ_REGISTER(RCC_APB1LENR) |= 1u << 18;
    gpio_alternate(GPIOD, 8, 7);
    gpio_alternate(GPIOD, 9, 7);
    usart_start(USART3, (APB1_HZ + EDGEQ_BAUD / 2u) / EDGEQ_BAUD);
}

int32_t edgeq_port_read(void) {
    return usart_read(USART3);
}

void edgeq_port_write(const uint8_t *bytes, uint32_t length) {
    usart_write(USART3, bytes, length);
}

void edgeq_port_info(edgeq_port_info_t *info) {
    edgeq_cycles_info(info, EDGEQ_CORE_HZ);
    info->capabilities = EDGEQ_INSTRUCTION_CACHE_ON | EDGEQ_DATA_CACHE_ON;
    edgeq_cortex_m_info(info);
}

void edgeq_port_reset(void) {
    usart_drain(USART3);
    edgeq_cortex_m_reset();
}
