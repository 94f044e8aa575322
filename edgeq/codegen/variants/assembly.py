"""Functions in assembly inside C, and constants as the words that they read."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen.arithmetic import Ints, wrap32


def function(name: str, comment: str, lines: Iterable[str]) -> str:
    """A leaf function as C text: the comment, then top-level assembly in a section of its own (for --gc-sections)."""
    head = [
        f'    .pushsection .text.{name}, \\"ax\\", %progbits', "    .syntax unified", "    .thumb", "    .balign 4",
        f"    .global {name}", f"    .type {name}, %function", f"    {name}:",
    ]  # fmt: skip
    tail = [f"    .size {name}, . - {name}", "    .popsection"]
    body = "\n".join(f'    "{line}\\n"' for line in (*head, *lines, *tail))
    text = f"/* {comment} */\n__asm__(\n{body});\n"
    if len(text) <= 4000:
        return text
    quiet = '#pragma GCC diagnostic ignored "-Woverlength-strings" /* longer than the 4,095 characters of C99 */'
    return f"#pragma GCC diagnostic push\n{quiet}\n{text}#pragma GCC diagnostic pop\n"


def as_words(values: Ints) -> NDArray[np.int32]:
    """Modulo 2^32, as int32."""
    return wrap32(values).astype(np.int32).reshape(-1)


def bytes_as_words(values: Ints) -> Ints:
    """int8 [rows, bytes] as words, rows padded to whole words."""
    padded = np.pad(values, ((0, 0), (0, -values.shape[1] % 4))).astype(np.int8)
    return np.ascontiguousarray(padded).view("<i4").astype(np.int64)
