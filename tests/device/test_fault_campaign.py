"""Every kind of fault, seeded, over a proxy and on emulators: the right result or the right error, in bounded time,
and the next run works."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from random import Random

import pytest
from fault_lab import FAULTS, LONGEST_S, Lab, lab

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(os.name != "posix", reason="needs ptys and signals"),
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc to find the emulators"),
]
BOARDS = (
    "host",
    *(("virtual-m4",) if find_spec("unicorn") else ()),
    *(("qemu-mps2-an386",) if shutil.which("qemu-system-arm") else ()),
)


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if len(BOARDS) < 3:
        pytest.skip("needs unicorn and qemu-system-arm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEQ_STATE", str(tmp_path_factory.mktemp("state")))
        with lab(tmp_path_factory.mktemp("faults"), BOARDS) as ready:
            yield ready


def strike(boards: Lab, name: str, seed: int) -> str:
    fault = FAULTS[name]
    started = time.monotonic()
    found = fault.run(boards, Random(f"{name} {seed}"))
    assert time.monotonic() - started < LONGEST_S, (name, seed)
    assert found in fault.allowed, (name, seed, found)
    boards.works()
    return found


@pytest.mark.parametrize("name", FAULTS)
def test_each_kind_of_fault(boards: Lab, name: str) -> None:
    strike(boards, name, 0)


@pytest.mark.slow
def test_a_thousand_faults(boards: Lab) -> None:
    """One campaign, in mixed order; every kind shows both that it strikes and that it can be overcome, if it can."""
    order = [(name, seed) for name, fault in FAULTS.items() for seed in range(1, fault.share + 1)]
    assert len(order) >= 1000
    Random(0).shuffle(order)
    seen: dict[str, Counter[str]] = {name: Counter() for name in FAULTS}
    for count, (name, seed) in enumerate(order):
        if count % 100 == 0:
            print(f"{count} of {len(order)}", flush=True)
        seen[name][strike(boards, name, seed)] += 1
    for name, counts in seen.items():
        print(f"{name:26} {sum(counts.values()):4}", ", ".join(f"{n} {what}" for what, n in counts.most_common()))
    for name in ("board reset", "session taken", "power cut", "power cut, BOOT unheard", "cable pulled", "board hangs"):
        assert len(seen[name]) == 2, (name, seen[name])
    for name in ("arena too small", "power cut while flashing"):
        assert set(seen[name]) == FAULTS[name].allowed, (name, seen[name])
