"""What the SSH side decides without a board: wheels, throttling."""

from __future__ import annotations

import pytest

from edgeq.device.ssh.measurement import compare_health
from edgeq.device.ssh.probe import DeviceFacts
from edgeq.device.ssh.wheels import REQUIREMENTS, choose
from edgeq.errors import DeviceError


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
