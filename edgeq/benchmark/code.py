"""`.text` by layer: which functions of the linked image a layer calls, and where a faster kernel was to be had."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeq.benchmark.manifest import Layer
from edgeq.boards import Board
from edgeq.boards.profile import GeneratedC
from edgeq.measure import Computed
from edgeq.toolchain import Image

_LAYER = re.compile(r"/\* Layer (\d+):.*?LAYER_DONE\(\1\);", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_]\w*")
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


@dataclass(frozen=True, slots=True)
class LayerCode:
    """Functions of the image that a layer runs. `shared_bytes` of `text_bytes` are run by other layers, too."""

    functions: tuple[str, ...]
    text_bytes: Computed
    shared_bytes: Computed

    def to_json(self) -> dict[str, object]:
        return {
            "functions": list(self.functions),
            "text_bytes": self.text_bytes.to_json(),
            "shared_bytes": self.shared_bytes.to_json(),
        }


def code_by_layer(bundle_dir: Path, name: str, image: Image) -> Mapping[int, LayerCode]:
    """The code of each layer, by its index: the functions that `src/<name>.c` calls for it, and those they call.

    A source names what it calls, and the linker tells what is left of it: functions that it dropped or that the
    compiler put into their callers count there. What layers share is counted in each of them.
    """
    sizes = {function: size for _, size, function in image.functions() if function.startswith(f"{name}_")}
    main = bundle_dir / "src" / f"{name}.c"
    mentioned = {
        path.stem: _names(path.read_text(encoding="utf-8")) & sizes.keys()
        for path in (bundle_dir / "src").glob("*.c")
        if path != main
    }
    layers = {
        int(match[1]): _reached(_names(match[0]) & sizes.keys(), mentioned)
        for match in _LAYER.finditer(main.read_text(encoding="utf-8"))
    }
    users: dict[str, int] = {}
    for functions in layers.values():
        for function in functions:
            users[function] = users.get(function, 0) + 1
    return {
        index: LayerCode(
            tuple(sorted(functions)),
            _bytes(sum(sizes[function] for function in functions)),
            _bytes(sum(sizes[function] for function in functions if users[function] > 1)),
        )
        for index, functions in layers.items()
    }


def _names(text: str) -> set[str]:
    return set(_NAME.findall(_COMMENT.sub("", text)))


def _reached(functions: set[str], mentioned: Mapping[str, set[str]]) -> set[str]:
    """`functions` and all that they call; a kernel's source bears its name."""
    reached: set[str] = set()
    while functions:
        reached |= functions
        functions = set().union(*(mentioned.get(function, set()) for function in functions)) - reached
    return reached


def _bytes(count: int) -> Computed:
    return Computed(count, "bytes", "linked image")


_MARKS = {"scalar": ("_armv6m", "_armv7m"), "dsp": ("_dsp",), "mve": ("_mve",)}
"""What the names of a family's kernels contain."""


def portable_kernels(layers: Sequence[Layer], board: Board) -> list[str]:
    """A sentence for each kind of layer with a portable kernel where EdgeQ has faster ones for the board's core.

    Not for float32, which has none.
    """
    from edgeq.codegen.registry import operators_with_variants

    executor = board.executor("generated-c")
    if not isinstance(executor, GeneratedC):
        return []
    faster = [kind for kind in executor.kernels if kind != "portable"]
    operators = {kind: operators_with_variants(kind) for kind in faster}
    found: dict[tuple[str, str, str], list[int]] = {}
    for layer in layers:
        if layer.kernel.endswith("_f32") or any(mark in layer.kernel for kind in faster for mark in _MARKS[kind]):
            continue
        for kind in faster:
            if layer.name in operators[kind]:
                found.setdefault((layer.name, layer.kernel, kind), []).append(layer.index)
                break
    return [
        f"Layer {', '.join(map(str, indices))} ({name}) fell back to the portable kernel {kernel}, although "
        f"EdgeQ has {kind.upper()} kernels of this operator for the core: none fits this layer, or none pays."
        for (name, kernel, kind), indices in found.items()
    ]
