"""What the SSH side decides without a board: wheels, throttling, exit status, how outputs are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bundles import Wheel

from edgeq.device.ssh import HostReport
from edgeq.device.ssh.comparison import generated_outputs
from edgeq.device.ssh.measurement import compare_health
from edgeq.device.ssh.probe import DeviceFacts
from edgeq.device.ssh.wheels import REQUIREMENTS, choose
from edgeq.errors import AnswerNo, DeviceError, EdgeqError, LinkError


def facts(machine: str, python: tuple[int, int], glibc: tuple[int, int] | None) -> DeviceFacts:
    return DeviceFacts("Raspberry Pi", machine, "", glibc, None, 4, "/usr/bin/python3", (*python, 0))


@pytest.mark.parametrize(
    ("machine", "python", "glibc", "prefer", "package"),
    [
        ("aarch64", (3, 11), (2, 36), None, "ai-edge-litert"),
        ("aarch64", (3, 11), (2, 36), "tflite-runtime", "tflite-runtime"),
        ("aarch64", (3, 13), (2, 41), "tflite-runtime", "ai-edge-litert"),
        ("aarch64", (3, 9), (2, 34), None, "tflite-runtime"),
        ("armv7l", (3, 11), (2, 36), None, "tflite-runtime"),
        ("armv7l", (3, 13), (2, 41), None, None),
        ("aarch64", (3, 9), (2, 31), None, None),
        ("aarch64", (3, 11), None, None, None),
    ],
)
def test_the_wheel_that_runs_there(
    machine: str, python: tuple[int, int], glibc: tuple[int, int] | None, prefer: str | None, package: str | None
) -> None:
    if package is None:
        with pytest.raises(DeviceError) as caught:
            choose(facts(machine, python, glibc), "h", prefer=prefer)
        assert caught.value.code == "no-interpreter-wheel"
        assert all(requirement.package in str(caught.value.why) for requirement in REQUIREMENTS)
    else:
        assert choose(facts(machine, python, glibc), "h", prefer=prefer).package == package


@pytest.mark.parametrize(
    ("before", "after", "throttled"),
    [(0, 0, False), (0, 0x50000, True), (0x50000, 0x50000, False), (0x50005, 0x50000, True), (None, None, None)],
)
def test_a_throttled_run_is_marked(before: int | None, after: int | None, throttled: bool | None) -> None:
    state = {"governors": ["ondemand"], "clocks_hz": [], "temperatures_celsius": {}, "load_average": 0.0}
    health = compare_health({**state, "throttled": before}, {**state, "throttled": after}, 4)
    assert health.throttled is throttled
    assert any("throttled" in finding for finding in health.findings) is bool(throttled)
    assert any("ondemand" in finding for finding in health.findings)


@pytest.mark.parametrize(
    ("failures", "status"),
    [
        ([], 0),
        ([AnswerNo("model-refused", "no")], 1),
        ([LinkError("connection-refused", "gone")], 3),
        ([LinkError("connection-refused", "gone"), AnswerNo("model-refused", "no")], 3),
    ],
)
def test_surroundings_that_fail_are_no_answer(failures: list[EdgeqError], status: int) -> None:
    assert HostReport((), {f"h{k}": error for k, error in enumerate(failures)}).exit_status == status


def test_generated_c_computes_as_tensorflow_lite_micro(shared: Path) -> None:
    """Where generated C differs from LiteRT's reference kernels, TFLM itself does too."""
    pytest.importorskip("tflite_micro")
    pytest.importorskip("ziglang")
    model = (shared / "models" / "kws_ref_int8.tflite").read_bytes()
    inputs = np.load(shared / "data" / "kws01.npz")["x_int8"][:200]
    oracle = Wheel(model)
    expected = [oracle.run([sample.reshape(1, 49, 10, 1)])[0].tobytes() for sample in inputs]
    assert [row[0] for row in generated_outputs(model, "kws", [(sample.tobytes(),) for sample in inputs])] == expected
