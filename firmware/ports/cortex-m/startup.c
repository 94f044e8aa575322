/* Reset, vector table and faults of every Cortex-M core. */
#include <string.h>

#include "caches.h"
#include "cortex_m.h"

#define SYST_CSR     EDGEQ_REGISTER(0xE000E010u)
#define NVIC_ICER(n) EDGEQ_REGISTER(0xE000E180u + 4u * (n))
#define NVIC_ICPR(n) EDGEQ_REGISTER(0xE000E280u + 4u * (n))

#define SCB_VTOR  EDGEQ_REGISTER(0xE000ED08u)
#define SCB_AIRCR EDGEQ_REGISTER(0xE000ED0Cu)
#define SCB_SHCSR EDGEQ_REGISTER(0xE000ED24u)
#define SCB_CFSR  EDGEQ_REGISTER(0xE000ED28u)
#define SCB_HFSR  EDGEQ_REGISTER(0xE000ED2Cu)
#define SCB_MMFAR EDGEQ_REGISTER(0xE000ED34u)
#define SCB_BFAR  EDGEQ_REGISTER(0xE000ED38u)
#define SCB_CPACR EDGEQ_REGISTER(0xE000ED88u)

#define MPU_TYPE EDGEQ_REGISTER(0xE000ED90u)
#define MPU_CTRL EDGEQ_REGISTER(0xE000ED94u)
#define MPU_RNR  EDGEQ_REGISTER(0xE000ED98u)
#define MPU_RBAR EDGEQ_REGISTER(0xE000ED9Cu)
#define MPU_RASR EDGEQ_REGISTER(0xE000EDA0u)

#define AIRCR_SYSRESETREQ            0x05FA0004u
#define CCR_LOB                      (1u << 19)
#define CPACR_CP10_CP11_FULL         (0xFu << 20)
#define SHCSR_MEMORY_BUS_USAGE       (7u << 16)
#define MPU_TYPE_REGIONS             0x0000FF00u
#define MPU_CTRL_ON_WITH_DEFAULT_MAP 5u
#define MPU_RASR_64K_NO_ACCESS       (1u << 28 | 15u << 1 | 1u)
#define GUARD_BYTES                  0x10000u
#if defined(__ARM_ARCH_6M__)
#define INTERRUPT_WORDS 1u
#else
#define INTERRUPT_WORDS 8u
#endif

extern uint32_t edgeq_stack_limit[], edgeq_stack_top[];
extern uint8_t edgeq_data_start[], edgeq_data_end[], edgeq_bss_start[], edgeq_bss_end[];
extern const uint8_t edgeq_data_load[];
extern uint8_t edgeq_ram_start[], edgeq_ram_end[];

edgeq_kept_t edgeq_kept __attribute__((section(".noinit")));

int main(void);
void edgeq_reset_handler(void);
void edgeq_start_c(void);
void edgeq_fault_entry(void);
void edgeq_fault_record(const uint32_t *frame, uint32_t exception);
void edgeq_systick_handler(void) __attribute__((weak, alias("edgeq_fault_entry")));

/* A fault's handler has its own stack: the cause may be that the other has run out. */
uint32_t edgeq_fault_stack[64] __attribute__((aligned(8)));

#define FAULT       edgeq_fault_entry
#define FIVE_FAULTS FAULT, FAULT, FAULT, FAULT, FAULT

typedef void (*handler_t)(void);

static const struct {
    uint32_t *stack;
    handler_t exceptions[15];
} vectors __attribute__((section(".vectors"), used)) = {
    edgeq_stack_top,
    {edgeq_reset_handler, FAULT, FAULT, FAULT, FAULT, FIVE_FAULTS, FAULT, FAULT, FAULT, FAULT, edgeq_systick_handler}};

/* What a boot loader may have left on would find no handler here. */
static void silence_interrupts(void) {
    SYST_CSR = 0;
    for (uint32_t n = 0; n < INTERRUPT_WORDS; ++n) {
        NVIC_ICER(n) = 0xFFFFFFFFu;
        NVIC_ICPR(n) = 0xFFFFFFFFu;
    }
}

static void enable_core_features(void) {
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    SCB_CPACR |= CPACR_CP10_CP11_FULL;
#endif
#if __ARM_ARCH >= 8 && defined(__ARM_FEATURE_MVE)
    SCB_CCR |= CCR_LOB;
#endif
#if !defined(__ARM_ARCH_6M__)
    SCB_VTOR = (uint32_t)&vectors;
    SCB_SHCSR |= SHCSR_MEMORY_BUS_USAGE;
#endif
    __asm volatile("dsb\n isb" ::: "memory");
}

/* An overflow of the stack faults: by the core's limit register, else by a forbidden region below the RAM. */
static void guard_stack(void) {
#if __ARM_ARCH >= 8
    __asm volatile("msr msplim, %0" ::"r"(edgeq_stack_limit));
#else
    if ((MPU_TYPE & MPU_TYPE_REGIONS) != 0) {
        MPU_RNR = 0;
        MPU_RBAR = (uint32_t)edgeq_ram_start - GUARD_BYTES;
        MPU_RASR = MPU_RASR_64K_NO_ACCESS;
        MPU_CTRL = MPU_CTRL_ON_WITH_DEFAULT_MAP;
    }
#endif
}

/* After a reset the core has done this itself; a boot loader may come here with any stack, and interrupts on or off. */
__attribute__((naked)) void edgeq_reset_handler(void) {
    __asm volatile(".syntax unified\n"
                   "cpsid i\n"
#if __ARM_ARCH >= 8
                   "movs r0, #0\n"
                   "msr msplim, r0\n"
#endif
                   "movs r0, #0\n"
                   "msr control, r0\n"
                   "isb\n"
                   "ldr r0, =edgeq_stack_top\n"
                   "mov sp, r0\n"
                   "ldr r0, =edgeq_start_c\n"
                   "bx r0\n"
                   ".ltorg\n");
}

void edgeq_start_c(void) {
    silence_interrupts();
    enable_core_features();
    guard_stack();
    memcpy(edgeq_data_start, edgeq_data_load, (uint32_t)(edgeq_data_end - edgeq_data_start));
    memset(edgeq_bss_start, 0, (uint32_t)(edgeq_bss_end - edgeq_bss_start));
    __asm volatile("cpsie i" ::: "memory");
    edgeq_port_start();
    (void)main();
}

/* Whichever stack the fault came from, the frame that the core has pushed lies at the main stack pointer. */
__attribute__((naked)) void edgeq_fault_entry(void) {
    __asm volatile("mrs r0, msp\n"
                   "mrs r1, ipsr\n"
                   "ldr r2, =edgeq_fault_stack + 256\n"
                   "mov sp, r2\n"
                   "bl edgeq_fault_record\n");
}

/* CFSR: the core could not push the frame, for bus or memory protection, or because the stack had reached its limit. */
#define CFSR_FRAME_NOT_STACKED (1u << 4 | 1u << 12)
#define CFSR_STACK_LIMIT       (1u << 20)

static bool frame_is_there(uint32_t sp, uint32_t cfsr) {
    const bool at_limit = (cfsr & CFSR_STACK_LIMIT) != 0 && sp == (uint32_t)edgeq_stack_limit;
    return sp >= (uint32_t)edgeq_ram_start && sp <= (uint32_t)edgeq_ram_end - 32u && !at_limit &&
           (cfsr & CFSR_FRAME_NOT_STACKED) == 0;
}

static uint32_t fault_kind(uint32_t exception) {
    return exception >= 3 && exception <= 7 ? EDGEQ_FAULT_HARD + exception - 3 : EDGEQ_FAULT_TRAP;
}

void edgeq_fault_record(const uint32_t *frame, uint32_t exception) {
    edgeq_fault_t fault;
    memset(&fault, 0, sizeof fault);
    fault.kind = fault_kind(exception);
    fault.sp = (uint32_t)frame;
#if !defined(__ARM_ARCH_6M__)
    fault.cfsr = SCB_CFSR;
    fault.hfsr = SCB_HFSR;
    fault.mmfar = SCB_MMFAR;
    fault.bfar = SCB_BFAR;
#endif
    if (frame_is_there(fault.sp, fault.cfsr)) {
        fault.r0 = frame[0];
        fault.r1 = frame[1];
        fault.r2 = frame[2];
        fault.r3 = frame[3];
        fault.r12 = frame[4];
        fault.lr = frame[5];
        fault.pc = frame[6];
        fault.psr = frame[7];
    }
    edgeq_agent_fault(&fault);
    edgeq_cortex_m_reset();
}

void edgeq_cortex_m_reset(void) {
#if defined(__ARM_ARCH_7EM__)
    edgeq_data_cache_clean();
#endif
    __asm volatile("dsb" ::: "memory");
    SCB_AIRCR = AIRCR_SYSRESETREQ;
    for (;;) {
    }
}

void edgeq_cortex_m_info(edgeq_port_info_t *info) {
    info->capabilities |= EDGEQ_CAN_RECORD_FAULTS | EDGEQ_CAN_RESET_BOARD;
    info->stack_limit = edgeq_stack_limit;
    info->stack_top = edgeq_stack_top;
    info->data_bytes = (uint32_t)(edgeq_data_end - edgeq_data_start);
    info->bss_bytes = (uint32_t)(edgeq_bss_end - edgeq_bss_start);
    info->spare = edgeq_bss_end;
    info->spare_bytes = (uint32_t)(edgeq_ram_end - edgeq_bss_end);
}
