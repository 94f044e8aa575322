/* The bench's firmware: runs a bundle's invoke on vectors in flash and answers over semihosting.
 *
 * Prints one line an output vector (`output <hex>`), then `stack <bytes>`: the high-water mark of a painted stack; or
 * `outside <offset>`, the first byte that was written before or behind the arena. The counter watches bench_start,
 * bench_stop and bench_layer. bench_model.h is generated: BENCH_MODEL_HEADER, the vectors.
 */
#include <stddef.h>
#include <stdint.h>

#include "bench_model.h"

extern uint32_t bench_stack_bottom[], bench_stack_top[], bench_bss_start[], bench_bss_end[];
extern uint32_t bench_data_load[], bench_data_start[], bench_data_end[];

/* Guards of at least GUARD_BYTES before and behind the arena: a write outside of it ends the run. */
enum { GUARD_BYTES = 64, GUARD = 0xa5, BEFORE_BYTES = BENCH_ARENA_ALIGN > 64 ? BENCH_ARENA_ALIGN : 64 };
static uint8_t memory[BEFORE_BYTES + BENCH_ARENA_BYTES + GUARD_BYTES] __attribute__((aligned(BEFORE_BYTES)));
static uint8_t *const arena = memory + BEFORE_BYTES;

static uint32_t semihost(uint32_t operation, const void *argument) {
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static void put(const char *text) {
    semihost(0x04, text);
}

static void put_number(const char *label, uint32_t value) {
    char text[12];
    char *at = text + sizeof text - 1;
    *at = 0;
    do {
        *--at = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    put(label);
    put(at);
    put("\n");
}

static void put_bytes(const uint8_t *bytes, size_t count) {
    static const char digits[] = "0123456789abcdef";
    char text[3] = {0, 0, 0};
    for (size_t i = 0; i < count; i++) {
        text[0] = digits[bytes[i] >> 4];
        text[1] = digits[bytes[i] & 15];
        put(text);
    }
}

__attribute__((noinline, noclone, used)) void bench_start(void) {
    __asm__ volatile("nop");
}
__attribute__((noinline, noclone, used)) void bench_stop(void) {
    __asm__ volatile("nop");
}
__attribute__((noinline, noclone, used)) void bench_layer(int32_t layer) {
    __asm__ volatile("" : : "r"(layer));
}

__attribute__((noinline)) static int32_t measured_invoke(uint32_t *used) {
    uint32_t *here = __builtin_frame_address(0);
    for (uint32_t *at = bench_stack_bottom; at < here - 8; at++)
        *at = 0xa5a5a5a5u;
    bench_start();
    int32_t status = BENCH_INVOKE(arena);
    bench_stop();
    uint32_t *at = bench_stack_bottom;
    while (*at == 0xa5a5a5a5u)
        at++;
    *used = (uint32_t)((uint8_t *)here - (uint8_t *)at);
    return status;
}

static void paint_guards(void) {
    for (size_t i = 0; i < sizeof memory; i++)
        if (i < BEFORE_BYTES || i >= BEFORE_BYTES + BENCH_ARENA_BYTES)
            memory[i] = GUARD;
}

static int guards_hold(void) {
    for (size_t i = 0; i < sizeof memory; i++) {
        if (i >= BEFORE_BYTES && i < BEFORE_BYTES + BENCH_ARENA_BYTES)
            i = BEFORE_BYTES + BENCH_ARENA_BYTES;
        if (memory[i] != GUARD) {
            put_number(i < BEFORE_BYTES ? "outside -" : "outside +",
                       (uint32_t)(i < BEFORE_BYTES ? BEFORE_BYTES - i : i - BEFORE_BYTES));
            return 0;
        }
    }
    return 1;
}

static void run(void) {
    uint32_t stack = 0;
    paint_guards();
    BENCH_RESET(arena);
    for (size_t v = 0; v < BENCH_VECTORS; v++) {
        size_t at = 0;
        for (int i = 0; i < BENCH_INPUTS; i++) {
            uint8_t *input = BENCH_INPUT(arena, i);
            for (size_t n = 0; n < bench_input_bytes[i]; n++)
                input[n] = bench_vectors[v][at++];
        }
        uint32_t used = 0;
        int32_t status = measured_invoke(&used);
        if (used > stack)
            stack = used;
        if (status != 0)
            put_number("status -", (uint32_t)-status);
        if (!guards_hold())
            return;
        put("output ");
        for (int i = 0; i < BENCH_OUTPUTS; i++)
            put_bytes(BENCH_OUTPUT(arena, i), bench_output_bytes[i]);
        put("\n");
    }
    put_number("stack ", stack);
}

static void leave(void) {
    semihost(0x18, (const void *)0x20026u); /* SYS_EXIT, ADP_Stopped_ApplicationExit */
    for (;;) {
    }
}

static void fault(void) {
    put("fault\n");
    leave();
}

void bench_reset(void) {
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* CPACR: FPU and MVE on */
    *(volatile uint32_t *)0xE000ED14u |= 1u << 19;   /* CCR.LOB: low-overhead loops, ignored where there are none */
    __asm__ volatile("dsb\n isb" ::: "memory");
    uint32_t *from = bench_data_load;
    for (uint32_t *at = bench_data_start; at < bench_data_end; at++)
        *at = *from++;
    for (uint32_t *at = bench_bss_start; at < bench_bss_end; at++)
        *at = 0;
    run();
    leave();
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    bench_stack_top,     (const void *)bench_reset, (const void *)fault, (const void *)fault,
    (const void *)fault, (const void *)fault,       (const void *)fault,
};
