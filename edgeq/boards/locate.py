"""Where in a TOML file a key stands: `tomllib` says it only for syntax errors."""

from __future__ import annotations

import re

Location = tuple[str | int, ...]

_TABLE = re.compile(r"^\s*\[\s*([^\[\]]+?)\s*\]\s*(?:#.*)?$")
_ARRAY = re.compile(r"^\s*\[\[\s*([^\[\]]+?)\s*\]\]\s*(?:#.*)?$")
_KEY = re.compile(r"""^\s*("[^"]+"|'[^']+'|[A-Za-z0-9_-]+)\s*=""")


def key_lines(text: str) -> dict[Location, int]:
    """Path of each table and key -> its line, from 1. Tables of an array have their index in the path.

    Reads the plain form that profiles have: one key a line, tables by headers, no dotted keys.
    """
    lines: dict[Location, int] = {(): 1}
    counts: dict[str, int] = {}
    prefix: Location = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if array := _ARRAY.match(line):
            name = array[1]
            prefix = (name, counts.get(name, 0))
            counts[name] = counts.get(name, 0) + 1
            lines.setdefault((name,), number)
            lines[prefix] = number
        elif table := _TABLE.match(line):
            prefix = tuple(part.strip() for part in table[1].split("."))
            lines.setdefault(prefix, number)
        elif key := _KEY.match(line):
            lines.setdefault((*prefix, key[1].strip("\"'")), number)
    return lines


def line_of(lines: dict[Location, int], location: Location) -> int:
    """The line of a path, or of the nearest table around it."""
    while location and location not in lines:
        location = location[:-1]
    return lines[location]
