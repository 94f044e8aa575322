"""The memory plan of a bundle, from its manifest: a table, and a picture of lifetimes (across) by addresses (up)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from rich.table import Table

_HEIGHT = 460
_LEFT, _TOP, _RIGHT = 86, 64, 24
_LABELS = 150
_COLOURS = {"input": "#9ec5e8", "output": "#a8d5a2", "tensor": "#f3d9a4", "scratch": "#d9d9d9"}
_LETTER = 6.2
"""Width of a letter at 10 pixels, in pixels."""
_HEAD_LETTER = 9.2
"""Width of a bold letter at 15 pixels."""

_Manifest = Mapping[str, Any]


def memory_table(manifest: _Manifest) -> Table:
    """A row for each buffer of the arena: what it holds, what fills it, bytes, address, life, what it overlaps."""
    from rich.markup import escape as plain
    from rich.table import Table as Rows

    regions = manifest.get("regions", ())
    table = Rows("#", "tensor", "filled by", *(["region"] if regions else []), box=None, header_style="bold")
    for name in ("bytes", "address", "steps", "in place on"):
        table.add_column(name, justify="right")
    last = len(manifest["layers"])
    for index, buffer in sorted(enumerate(manifest["buffers"]), key=lambda entry: entry[1]["first"]):
        ends = (_step(step, last) for step in (buffer["first"], buffer["last"]))
        table.add_row(
            str(index),
            plain(_short(buffer["name"], 30)) if buffer["tensors"] else "scratch",
            _filled_by(manifest, buffer),
            *(plain(region["name"]) for region in regions if _holds(region, buffer["offset"])),
            f"{buffer['bytes']:,}",
            f"{buffer['offset']:,}",
            "..".join(dict.fromkeys(ends)),
            ", ".join(map(str, buffer["overlaps"])),
        )
    return table


def _holds(region: Mapping[str, Any], address: int) -> bool:
    return bool(region["offset"] <= address < region["offset"] + region["bytes"])


def regions_text(manifest: _Manifest) -> str:
    """Where the arena lies, if not in the board's first region of RAM: ` (98,304 bytes in sram, 480 bytes in ccm)`."""
    pieces = [f"{region['bytes']:,} bytes in {region['name']}" for region in manifest.get("regions", ())]
    return f" ({', '.join(pieces)})" if pieces else ""


def _filled_by(manifest: _Manifest, buffer: Mapping[str, Any]) -> str:
    first = buffer["first"]
    return "caller" if first < 0 else f"{first} {manifest['layers'][first]['name']}"


def _step(step: int, last: int) -> str:
    return "in" if step < 0 else "out" if step >= last else str(step)


def _short(name: str, letters: int) -> str:
    """A name's end, which tells tensors apart."""
    return name if len(name) <= letters else f"…{name[1 - letters :]}" if letters > 2 else ""


class _Axes:
    """Where a step and an address lie in the picture, in pixels."""

    def __init__(self, steps: int, arena_bytes: int) -> None:
        self.steps, self.arena_bytes = steps, max(1, arena_bytes)
        self.column = max(9.0, min(38.0, 1500 / (steps + 2)))
        self.width = _LEFT + self.column * (steps + 2) + _RIGHT
        self.height = _TOP + _HEIGHT + _LABELS

    def x(self, step: int) -> float:
        """The left edge of a step; -1 is the caller before the first, `steps` the caller after the last."""
        return _LEFT + (step + 1) * self.column

    def y(self, address: float) -> float:
        return _TOP + _HEIGHT * (1 - address / self.arena_bytes)


def _text(x: float, y: float, text: str, **attributes: object) -> str:
    more = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in attributes.items())
    return f'<text x="{x:.1f}" y="{y:.1f}"{more}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {style}/>'


def _kind(manifest: _Manifest, buffer: Mapping[str, Any]) -> str:
    if not buffer["tensors"]:
        return "scratch"
    for kind in ("input", "output"):
        if {tensor["name"] for tensor in manifest[f"{kind}s"]} & set(buffer["tensors"]):
            return kind
    return "tensor"


def _boxes(axes: _Axes, manifest: _Manifest) -> Iterator[str]:
    for buffer in manifest["buffers"]:
        colour = _COLOURS[_kind(manifest, buffer)]
        for part in buffer.get("parts") or [{"start": 0, "end": buffer["bytes"], **buffer}]:
            start, end = buffer["offset"] + part["start"], buffer["offset"] + part["end"]
            x, width = axes.x(part["first"]), axes.x(part["last"] + 1) - axes.x(part["first"])
            title = f"{buffer['name']}: bytes {start:,} to {end:,}, steps {part['first']} to {part['last']}"
            box = f'x="{x:.1f}" y="{axes.y(end):.1f}" width="{width:.1f}" height="{axes.y(start) - axes.y(end):.1f}"'
            style = f'fill="{colour}" fill-opacity="0.8" stroke="#555" stroke-width="0.6"'
            yield f"<rect {box} {style}><title>{escape(title)}</title></rect>"
    for buffer in manifest["buffers"]:
        yield from _box_label(axes, manifest, buffer)


def _box_label(axes: _Axes, manifest: _Manifest, buffer: Mapping[str, Any]) -> Iterator[str]:
    """What fills it, and bytes, upright in the column in which it is born, as far as there is room."""
    parts = buffer.get("parts") or [{"start": 0, "end": buffer["bytes"], **buffer}]
    part = max(parts, key=lambda one: one["end"] - one["start"])
    top, bottom = (axes.y(buffer["offset"] + part[edge]) for edge in ("end", "start"))
    x, y, size = axes.x(part["first"]) + axes.column / 2, (top + bottom) / 2, f"{buffer['bytes']:,}"
    first = buffer["first"]
    filled_by = "input" if first < 0 else f"{first} {manifest['layers'][first]['name']}"
    for label in (f"{'scratch' if not buffer['tensors'] else filled_by}: {size}", size):
        if axes.column >= 12 and len(label) * _LETTER + 4 <= bottom - top:
            turn = f"rotate(-90 {x:.1f} {y:.1f})"
            yield _text(x, y + 3.5, label, text_anchor="middle", font_size=10, transform=turn)
            return
    if bottom - top >= 11 and len(size) * _LETTER + 2 <= axes.column:
        yield _text(x, y + 3.5, size, text_anchor="middle", font_size=10)


def _tick(arena_bytes: int) -> int:
    """A round distance between addresses on the scale, four to ten of them."""
    power: int = 10 ** max(1, len(str(arena_bytes)) - 2)
    return next(power * factor for factor in (1, 2, 5, 10, 20) if arena_bytes < 10 * power * factor)


def _scale(axes: _Axes, manifest: _Manifest) -> Iterator[str]:
    """Addresses on the left, layers below, the arena's end and the lower bound as lines."""
    right = axes.width - _RIGHT
    for address in range(0, axes.arena_bytes, _tick(axes.arena_bytes)):
        yield _line(_LEFT, axes.y(address), right, axes.y(address), 'stroke="#ddd" stroke-width="0.6"')
        if axes.y(address) - _TOP > 12:
            yield _text(_LEFT - 6, axes.y(address) + 4, f"{address:,}", text_anchor="end")
    for lane in _lanes(manifest):
        end = lane["offset"] + lane["bytes"]
        top, bound = axes.y(end), axes.y(lane["offset"] + lane["lower_bound_bytes"])
        yield _line(_LEFT, top, right, top, 'stroke="#b00" stroke-width="1.6"')
        yield _text(_LEFT - 6, top + 4, f"{end:,}", text_anchor="end", fill="#b00", font_weight="bold")
        yield _line(_LEFT, bound, right, bound, 'stroke="#06c" stroke-width="1.6" stroke-dasharray="6 6"')
        yield _text(right - 4, top + 13, lane["name"], text_anchor="end", font_size=12, font_weight="bold")
    names = ["in", *(f"{layer['index']} {layer['name']}" for layer in manifest["layers"]), "out"]
    every = max(1, -(-12 // int(axes.column)))
    for step, name in enumerate(names, start=-1):
        if (step + 1) % every == 0 or step == len(names) - 2:
            x, y = axes.x(step) + axes.column / 2 + 3, axes.y(0) + 10
            yield _text(x, y, name, text_anchor="end", transform=f"rotate(-60 {x:.1f} {y:.1f})")


def _lanes(manifest: _Manifest) -> Sequence[Mapping[str, Any]]:
    """The regions of RAM, one above the other; of an arena in one piece, the arena."""
    bound = manifest["arena_lower_bound_bytes"]
    whole = {"name": "", "offset": 0, "bytes": manifest["arena_bytes"], "lower_bound_bytes": bound}
    return manifest.get("regions") or [whole]


def _legend() -> Iterator[str]:
    x = float(_LEFT)
    for name, colour in _COLOURS.items():
        yield f'<rect x="{x:.1f}" y="38" width="12" height="12" fill="{colour}" stroke="#555" stroke-width="0.6"/>'
        yield _text(x + 17, 48, name)
        x += 90
    yield _line(x, 44, x + 24, 44, 'stroke="#b00" stroke-width="1.6"')
    yield _text(x + 30, 48, "arena")
    yield _line(x + 90, 44, x + 114, 44, 'stroke="#06c" stroke-width="1.6" stroke-dasharray="6 6"')
    yield _text(x + 120, 48, "lower bound")


def memory_picture(manifest: _Manifest) -> str:
    """The plan as SVG: a box for each buffer (or part of one), as wide as its life and as high as its bytes."""
    axes = _Axes(len(manifest["layers"]), manifest["arena_bytes"])
    bound = manifest["arena_lower_bound_bytes"]
    head = f"{manifest['name']} on {manifest['board']}: arena {manifest['arena_bytes']:,} bytes, lower bound {bound:,}"
    width, height = max(axes.width, 720, _LEFT + _HEAD_LETTER * len(head) + _RIGHT), axes.height
    body = [_text(_LEFT, 24, head, font_size=15, font_weight="bold"), *_legend()]
    body += [*_scale(axes, manifest), *_boxes(axes, manifest)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="sans-serif" font-size="11">',
            '<rect width="100%" height="100%" fill="#fff"/>',
            *body,
            "</svg>\n",
        ]
    )


def goals_table(goals: Sequence[Mapping[str, Any]]) -> Table:
    """What each `--optimize` would cost, the chosen one marked; instructions and flash are estimates."""
    from rich.table import Table as Rows

    table = Rows("--optimize", box=None, header_style="bold")
    for name in ("arena, bytes", "flash, bytes (estimated)", "instructions (estimated)"):
        table.add_column(name, justify="right")
    for goal in goals:
        mark = " *" if goal["chosen"] else ""
        numbers = (goal["arena_bytes"], goal["flash_bytes"], goal["instructions"])
        table.add_row(f"{goal['optimize']}{mark}", *(f"{number:,}" for number in numbers))
    return table
