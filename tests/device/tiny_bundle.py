"""A bundle written by hand after the contract in docs/architecture.md: a model whose every byte a test can foretell.

output[i] = input_0[i] ^ 0x5A, and output[0] is a count of runs since the reset. input_1[0] is a command: 1 return an
error, 2 read from an address that does not exist, 3 execute an undefined instruction, 4 run out of stack; input_1[1]
lengthens layer 1 by so many times 100,000 turns of a loop, which on a microcontroller are two instructions each, and
input_1[2] is how often more it does so.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

DIGEST = hashlib.sha256(b"tiny").hexdigest()
INPUT_BYTES, COMMAND_BYTES, ARENA_BYTES = 3000, 4, 6144
LAYERS = 3
STATUS_OF_FAILURE = -7

HEADER = f"""
#ifndef TINY_H
#define TINY_H
#include <stdint.h>
#define TINY_ARENA_BYTES {ARENA_BYTES}
void *tiny_input(void *arena, int index);
const void *tiny_output(const void *arena, int index);
int32_t tiny_invoke(void *arena);
void tiny_reset(void *arena);
#endif
"""

SOURCE = f"""
#include "tiny.h"
#ifdef EDGEQ_PROFILE_HOOK
void EDGEQ_PROFILE_HOOK(int32_t layer);
#define HOOK(n) EDGEQ_PROFILE_HOOK(n)
#else
#define HOOK(n)
#endif
enum {{ INPUT = 16, COMMAND = 16 + {INPUT_BYTES}, OUTPUT = 32 + {INPUT_BYTES} }};

void *tiny_input(void *arena, int index) {{ return (uint8_t *)arena + (index == 0 ? INPUT : COMMAND); }}
const void *tiny_output(const void *arena, int index) {{ (void)index; return (const uint8_t *)arena + OUTPUT; }}
void tiny_reset(void *arena) {{ *(uint8_t *)arena = 0; }}

__attribute__((noinline)) static void tiny_wait(uint32_t turns) {{
#ifdef __arm__
    __asm volatile(".syntax unified; 1: subs %0, %0, #1; bne 1b" : "+l"(turns) : : "cc");
#elif defined(__riscv)
    __asm volatile("1: addi %0, %0, -1; bnez %0, 1b" : "+r"(turns));
#else
    for (volatile uint32_t i = 0; i < turns; ++i) {{ }}
#endif
}}

__attribute__((noinline)) static int32_t tiny_overflow(volatile int32_t depth) {{
    volatile int32_t here[64];
    here[depth & 63] = depth;
    return depth < 0 ? 0 : tiny_overflow(depth + 1) + here[depth & 63];
}}

__attribute__((noinline)) int32_t tiny_misbehave(int command) {{
    if (command == 2) return *(volatile int32_t *)(uintptr_t)0xE2345678u;
    if (command == 3) __builtin_trap();
    if (command == 4) return tiny_overflow(0);
    return command == 1 ? {STATUS_OF_FAILURE} : 0;
}}

int32_t tiny_invoke(void *arena) {{
    uint8_t *const bytes = arena;
    bytes[0]++;
    for (int32_t i = 0; i < {INPUT_BYTES}; ++i) bytes[OUTPUT + i] = bytes[INPUT + i] ^ 0x5A;
    HOOK(0);
    if (bytes[COMMAND + 1] != 0) {{
        for (int32_t i = 0; i <= bytes[COMMAND + 2]; ++i) tiny_wait(bytes[COMMAND + 1] * 100000u);
    }}
    HOOK(1);
    const int32_t status = tiny_misbehave(bytes[COMMAND]);
    bytes[OUTPUT] = bytes[0];
    for (int32_t i = 0; i < {INPUT_BYTES}; ++i) bytes[INPUT + i] = 0;
    HOOK(2);
    return status;
}}
"""


def write_tiny_bundle(
    directory: Path, *, source: str = SOURCE, arena_bytes: int = ARENA_BYTES, input_bytes: int = INPUT_BYTES
) -> Path:
    """The bundle in `directory`, with source, arena or the first input's size replaced where a test wants it."""
    files = {"include/tiny.h": HEADER, "src/tiny.c": source.replace(str(INPUT_BYTES), str(input_bytes))}
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    manifest = {
        "schema": "edgeq.bundle/1",
        "tool_version": "0.1.0",
        "name": "tiny",
        "model_sha256": DIGEST,
        "board": "host",
        "options": {},
        "arena_bytes": arena_bytes,
        "arena_align": 16,
        "inputs": [{"name": "x", "bytes": input_bytes}, {"name": "command", "bytes": COMMAND_BYTES}],
        "outputs": [{"name": "y", "bytes": input_bytes}],
        "layers": [{"index": i, "operator": i, "name": name} for i, name in enumerate(("XOR", "WAIT", "END"))],
        "constants_bytes": 0,
        "compile_options": ["-std=c99", "-O2"],
        "files": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()},
    }
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return directory
