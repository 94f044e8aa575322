/*
 * Netduino Plus 2 (STM32F405) as QEMU has it: USART1 and TIM2, no clock tree.
 * Run with `-icount shift=0`: an instruction takes 1 ns, and TIM2 counts at 1 GHz.
 */
#include "usart_v1.h"

#define USART1      0x40011000u
#define TIM2        0x40000000u
#define TIM_CR1     EDGEQ_REGISTER(TIM2 + 0x00u)
#define TIM_EGR     EDGEQ_REGISTER(TIM2 + 0x14u)
#define TIM_CNT     EDGEQ_REGISTER(TIM2 + 0x24u)
#define TIM_ARR     EDGEQ_REGISTER(TIM2 + 0x2Cu)
#define TIM_CR1_CEN 1u
#define TIM_EGR_UG  1u

static uint32_t last_value;
static uint64_t counted;

void edgeq_port_start(void) {
    usart_start(USART1, 139); /* 115,200 baud of the 16 MHz after reset */
}

int32_t edgeq_port_read(void) {
    return usart_read(USART1);
}

void edgeq_port_write(const uint8_t *bytes, uint32_t length) {
    usart_write(USART1, bytes, length);
}

void edgeq_port_timer_start(void) {
    TIM_ARR = 0xFFFFFFFFu;
    TIM_EGR = TIM_EGR_UG;
    TIM_CR1 = TIM_CR1_CEN;
    last_value = TIM_CNT;
    counted = 0;
}

void edgeq_port_timer_stop(void) {
    TIM_CR1 = 0;
}

uint64_t edgeq_port_ticks(void) {
    const uint32_t value = TIM_CNT;
    counted += value - last_value;
    last_value = value;
    return counted;
}

void edgeq_port_info(edgeq_port_info_t *info) {
    info->timer_kind = EDGEQ_TIMER_INSTRUCTIONS;
    info->timer_resolution = 1;
    info->progress_ticks = 20000000u;
    edgeq_cortex_m_info(info);
}

void edgeq_port_reset(void) {
    usart_drain(USART1);
    edgeq_cortex_m_reset();
}
