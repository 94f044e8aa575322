/* A TCG plugin for QEMU 7.2 that counts executed instructions exactly, per program counter.
 *
 * Arguments, addresses in hex: start=ADDR stop=ADDR lo=ADDR size=BYTES out=FILE [mark=ADDR]
 * Counting begins when the instruction at `start` executes for the first time and ends when the one at `stop` does;
 * both are the first instructions of marker functions. `lo` and `size` delimit the code that is counted per address.
 * The file: `total N`, `outside N` (executed outside of [lo, lo + size)), `mark N` for every execution of `mark` (N:
 * instructions since start, which gives counts by layer), then `ADDR COUNT TAKEN` lines; TAKEN: how often control went
 * elsewhere than to the next instruction, which only the last instruction of a translated block can do.
 *
 * Debian ships no qemu-plugin.h; the functions declared here are the stable API version 1 that QEMU 7.2 exports.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_info;
typedef void (*translated_cb)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*executed_cb)(unsigned cpu, void *data);
enum { INLINE_ADD_U64 = 0, NO_REGISTERS = 0 };

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, translated_cb callback);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block, size_t index);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *instruction);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *instruction);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *block, executed_cb callback, int flags, void *data);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *instruction, int operation, void *counter,
                                                uint64_t value);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *instruction, executed_cb callback, int flags,
                                            void *data);

EXPORT int qemu_plugin_version = 1;

enum { MAX_MARKS = 4096 };
static enum { BEFORE, COUNTING, AFTER } phase;
static uint64_t low, size_bytes = UINT64_C(1) << 20, start, stop, mark;
static const char *out_path = "icount.out";
static uint64_t total, outside, total_at_start, outside_at_start;
static uint64_t *counts, *counts_at_start, *taken;

/* A translated block: its first address, the address behind it, and its last instruction's place in `taken`. */
struct block {
    uint64_t first, behind;
    uint64_t *last_taken;
};
static const struct block *previous;
static uint64_t marks[MAX_MARKS];
static size_t mark_count;

static void on_start(unsigned cpu, void *data) {
    (void)cpu;
    (void)data;
    if (phase != BEFORE)
        return;
    phase = COUNTING;
    total_at_start = total;
    outside_at_start = outside;
    memcpy(counts_at_start, counts, size_bytes / 2 * sizeof *counts);
}

static void on_block(unsigned cpu, void *data) {
    (void)cpu;
    const struct block *block = data;
    if (phase == COUNTING && previous != NULL && previous->last_taken != NULL && block->first != previous->behind)
        (*previous->last_taken)++;
    previous = block;
}

static void on_mark(unsigned cpu, void *data) {
    (void)cpu;
    (void)data;
    if (phase == COUNTING && mark_count < MAX_MARKS)
        marks[mark_count++] = total - total_at_start;
}

static void on_stop(unsigned cpu, void *data) {
    (void)cpu;
    (void)data;
    if (phase != COUNTING)
        return;
    phase = AFTER;
    FILE *out = fopen(out_path, "w");
    if (out == NULL) {
        perror(out_path);
        exit(1);
    }
    fprintf(out, "total %" PRIu64 "\noutside %" PRIu64 "\n", total - total_at_start, outside - outside_at_start);
    for (size_t i = 0; i < mark_count; i++)
        fprintf(out, "mark %" PRIu64 "\n", marks[i]);
    for (uint64_t i = 0; i < size_bytes / 2; i++) {
        uint64_t count = counts[i] - counts_at_start[i];
        if (count != 0)
            fprintf(out, "%" PRIx64 " %" PRIu64 " %" PRIu64 "\n", low + 2 * i, count, taken[i]);
    }
    fclose(out);
}

static void on_translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
    (void)id;
    size_t length = qemu_plugin_tb_n_insns(block);
    const struct qemu_plugin_insn *last = qemu_plugin_tb_get_insn(block, length - 1);
    uint64_t at = qemu_plugin_insn_vaddr(last);
    struct block *known = malloc(sizeof *known); /* lives as long as QEMU may run the block: until exit */
    if (known == NULL)
        abort();
    known->first = qemu_plugin_insn_vaddr(qemu_plugin_tb_get_insn(block, 0));
    known->behind = at + qemu_plugin_insn_size(last);
    known->last_taken = at >= low && at < low + size_bytes ? &taken[(at - low) / 2] : NULL;
    qemu_plugin_register_vcpu_tb_exec_cb(block, on_block, NO_REGISTERS, known);
    for (size_t i = 0; i < length; i++) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(block, i);
        uint64_t address = qemu_plugin_insn_vaddr(instruction);
        uint64_t *counter = address >= low && address < low + size_bytes ? &counts[(address - low) / 2] : &outside;
        if (address == start)
            qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_start, NO_REGISTERS, NULL);
        if (address == stop)
            qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_stop, NO_REGISTERS, NULL);
        if (mark != 0 && address == mark)
            qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_mark, NO_REGISTERS, NULL);
        qemu_plugin_register_vcpu_insn_exec_inline(instruction, INLINE_ADD_U64, &total, 1);
        qemu_plugin_register_vcpu_insn_exec_inline(instruction, INLINE_ADD_U64, counter, 1);
    }
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info *info, int argc, char **argv) {
    (void)info;
    for (int i = 0; i < argc; i++) {
        const char *value = strchr(argv[i], '=');
        if (value == NULL)
            return 1;
        size_t length = (size_t)(value++ - argv[i]);
        uint64_t number = strtoull(value, NULL, 16);
        if (!strncmp(argv[i], "start", length))
            start = number;
        else if (!strncmp(argv[i], "stop", length))
            stop = number;
        else if (!strncmp(argv[i], "mark", length))
            mark = number;
        else if (!strncmp(argv[i], "lo", length))
            low = number;
        else if (!strncmp(argv[i], "size", length))
            size_bytes = number;
        else if (!strncmp(argv[i], "out", length))
            out_path = strdup(value);
        else
            return 1;
    }
    counts = calloc(size_bytes / 2, sizeof *counts);
    counts_at_start = calloc(size_bytes / 2, sizeof *counts_at_start);
    taken = calloc(size_bytes / 2, sizeof *taken);
    if (counts == NULL || counts_at_start == NULL || taken == NULL)
        return 1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translated);
    return 0;
}
