/* Reset and traps of a RISC-V core in machine mode; physical memory protection guards the stack. */
#include "riscv.h"

#include <string.h>

extern uint32_t edgeq_stack_limit[], edgeq_stack_top[];
extern uint8_t edgeq_data_start[], edgeq_data_end[], edgeq_bss_start[], edgeq_bss_end[];
extern const uint8_t edgeq_data_load[];
extern uint8_t edgeq_ram_start[], edgeq_ram_end[];

edgeq_kept_t edgeq_kept __attribute__((section(".noinit")));

int main(void);
void edgeq_reset_handler(void);
void edgeq_start_c(void);
void edgeq_trap_entry(void);
void edgeq_trap_record(const uint32_t *saved);

/* A trap's handler has its own stack: the cause may be that the other has run out. */
uint32_t edgeq_trap_stack[64] __attribute__((aligned(16)));
/* sp, ra, a0-a3, t0 at the trap. */
uint32_t edgeq_trap_saved[7];

__attribute__((naked, section(".start"))) void edgeq_reset_handler(void) {
    __asm volatile("la sp, edgeq_stack_top\n"
                   "la t0, edgeq_trap_entry\n"
                   "csrw mtvec, t0\n"
                   "j edgeq_start_c\n");
}

#define GUARD_BYTES                  0x10000u
#define PMP_LOCKED_ALIGNED_NO_ACCESS 0x98u

/* An overflow of the stack faults: what lies below the RAM is locked, for machine mode, too. */
static void guard_stack(void) {
    const uint32_t guard = ((uint32_t)edgeq_ram_start - GUARD_BYTES) >> 2 | (GUARD_BYTES / 8u - 1u);
    __asm volatile("csrw pmpaddr0, %0" ::"r"(guard));
    __asm volatile("csrw pmpcfg0, %0" ::"r"(PMP_LOCKED_ALIGNED_NO_ACCESS));
}

void edgeq_start_c(void) {
    memcpy(edgeq_data_start, edgeq_data_load, (uint32_t)(edgeq_data_end - edgeq_data_start));
    memset(edgeq_bss_start, 0, (uint32_t)(edgeq_bss_end - edgeq_bss_start));
    guard_stack();
    edgeq_port_start();
    (void)main();
}

__attribute__((naked, aligned(4))) void edgeq_trap_entry(void) {
    __asm volatile("csrw mscratch, t1\n"
                   "la t1, edgeq_trap_saved\n"
                   "sw sp, 0(t1)\n"
                   "sw ra, 4(t1)\n"
                   "sw a0, 8(t1)\n"
                   "sw a1, 12(t1)\n"
                   "sw a2, 16(t1)\n"
                   "sw a3, 20(t1)\n"
                   "sw t0, 24(t1)\n"
                   "mv a0, t1\n"
                   "la sp, edgeq_trap_stack + 256\n"
                   "j edgeq_trap_record\n");
}

void edgeq_trap_record(const uint32_t *saved) {
    edgeq_fault_t fault;
    memset(&fault, 0, sizeof fault);
    fault.kind = EDGEQ_FAULT_TRAP;
    fault.sp = saved[0];
    fault.lr = saved[1];
    fault.r0 = saved[2];
    fault.r1 = saved[3];
    fault.r2 = saved[4];
    fault.r3 = saved[5];
    fault.r12 = saved[6];
    __asm volatile("csrr %0, mepc" : "=r"(fault.pc));
    __asm volatile("csrr %0, mstatus" : "=r"(fault.psr));
    __asm volatile("csrr %0, mcause" : "=r"(fault.cfsr));
    __asm volatile("csrr %0, mtval" : "=r"(fault.hfsr));
    edgeq_agent_fault(&fault);
    edgeq_port_restart();
}

void edgeq_riscv_info(edgeq_port_info_t *info) {
    info->capabilities |= EDGEQ_CAN_RECORD_FAULTS | EDGEQ_CAN_RESET_BOARD;
    info->stack_limit = edgeq_stack_limit;
    info->stack_top = edgeq_stack_top;
    info->data_bytes = (uint32_t)(edgeq_data_end - edgeq_data_start);
    info->bss_bytes = (uint32_t)(edgeq_bss_end - edgeq_bss_start);
    info->spare = edgeq_bss_end;
    info->spare_bytes = (uint32_t)(edgeq_ram_end - edgeq_bss_end);
}
