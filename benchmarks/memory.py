"""The planner's bytes beside the lower bound, and what patch-by-patch execution saves and costs.

    python benchmarks/memory.py [MODEL.tflite ...] [--write]

Without models: the four published MLPerf Tiny int8 models in EDGEQ_SHARED/models (or ../shared/models) and ten whole
Keras networks of the tests, built and converted on the spot. Everything is computed from plans for a Cortex-M4F;
nothing runs. `--write` renews benchmarks/memory.md.
"""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgeq.boards import load_board
from edgeq.codegen import Plan, plan, plan_within
from edgeq.codegen.select import cost
from edgeq.errors import AnswerNo
from edgeq.graph import Graph, read

ROOT = Path(__file__).resolve().parents[1]
BOARD = "qemu-mps2-an386"
PUBLISHED = ("kws_ref_int8", "vww_96_int8", "ic_resnet8_int8", "ad01_int8")
NETWORKS = (
    "residual_bottleneck", "inverted_residual", "squeeze_excite", "dense_blocks", "inception", "unet",
    "feature_pyramid_detector", "temporal_convolutions", "lstm", "vision_transformer",
)  # fmt: skip
SHARES = (90, 80, 70, 60)
"""Limits for --ram, as percentages of the arena under the goal `ram`."""
_HEAD = """# Arenas: planned, and the lower bound

`make bench-memory`, {date}, EdgeQ's plans for a Cortex-M4F ({board}). All numbers are computed from plans or estimated;
nothing was run for them. The lower bound is the largest sum of buffers alive at one step of the chosen kernels, less
what kernels allow to overlap, or what an exhausted search has proven; where it equals the arena, the plan is optimal.

"""


def converted(place: Path) -> list[Path]:
    """The ten networks as int8 `.tflite` files."""
    script = ROOT / "tests" / "unit" / "codegen" / "keras_networks.py"
    subprocess.run([sys.executable, str(script), "int8", str(place), *NETWORKS], check=True, stdout=subprocess.DEVNULL)
    return [place / f"{name}.tflite" for name in NETWORKS]


def planned_rows(name: str, graph: Graph) -> Iterator[str]:
    for goal in ("balanced", "ram"):
        made = plan(graph, load_board(BOARD), optimize=goal)
        arena = made.arena
        over = 100 * (arena.size_bytes / max(1, arena.lower_bound_bytes) - 1)
        yield (
            f"| {name} | {goal} | {len(made.buffers)} | {arena.lower_bound_bytes:,} | {arena.size_bytes:,} "
            f"| {over:.1f} % | {arena.method} |"
        )


def patch_rows(name: str, graph: Graph) -> Iterator[str]:
    """What each limit gives, until one cannot be met."""
    board = load_board(BOARD)
    whole = plan(graph, board, optimize="ram")
    for share in SHARES:
        limit = whole.arena_bytes * share // 100
        try:
            made = plan_within(graph, board, limit)
        except AnswerNo as error:
            yield f"| {name} | {limit:,} | | {error.why} | | |"
            return
        yield f"| {name} | {limit:,} | {made.arena_bytes:,} | {_patches(made)} | {_more(made, whole)} |"


def _patches(made: Plan) -> str:
    if made.patches is None:
        return f"whole, goal {made.optimize}"
    return f"{made.patches.operators} layers in {made.patches.count} patches"


def _more(made: Plan, whole: Plan) -> str:
    repeated = made.patches.repeated if made.patches else 0
    return f"{repeated:,} of {whole.macs:,} | {cost(made.steps):,.0f} ({cost(whole.steps):,.0f})"


def report(models: Sequence[Path]) -> str:
    graphs = [(path.stem, read(path)) for path in models]
    lines = ["| model | goal | buffers | lower bound | arena | above it | found by |", "| --- " * 7 + "|"]
    lines += [row for name, graph in graphs for row in planned_rows(name, graph)]
    lines += ["", "## Patch by patch", "", "`edgeq bundle --ram BYTES`; multiplications repeated, of all of the model;"]
    lines += ["instructions estimated, in brackets those of the goal `ram` with whole layers.", ""]
    lines += ["| model | --ram | arena | how | repeated | instructions |", "| --- " * 6 + "|"]
    images = [(name, graph) for name, graph in graphs if len(graph.tensors[graph.inputs[0]].shape) == 4]
    lines += [row for name, graph in images for row in patch_rows(name, graph)]
    head = _HEAD.format(date=datetime.datetime.now(datetime.UTC).date().isoformat(), board=BOARD)
    return head + "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--write", action="store_true", help="renew benchmarks/memory.md")
    arguments = parser.parse_args()
    shared = Path(os.environ.get("EDGEQ_SHARED", ROOT.parent / "shared")) / "models"
    with tempfile.TemporaryDirectory() as place:
        models = arguments.models or [*(shared / f"{name}.tflite" for name in PUBLISHED), *converted(Path(place))]
        text = report(models)
    print(text)
    if arguments.write:
        (ROOT / "benchmarks" / "memory.md").write_text(text)


if __name__ == "__main__":
    main()
