"""The whole path in a Debian userland for 64-bit Arm, executed by qemu-user: `make test-arm64`.

debootstrap fetches the packages once; they are unpacked into a cache directory. A real OpenSSH server of this computer
changes into it for its sessions, so that all that EdgeQ starts there is Arm code. Needs root, qemu-user-static,
debootstrap and binfmt_misc, and a cache directory (EDGEQ_CACHE) in which only root can write, as sshd demands.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ssh_board import SSHD, USER, Client, SshBoard, fails, host, small_model

from edgeq.device import ssh
from edgeq.measure import Measured

pytestmark = pytest.mark.slow

MIRROR = "http://deb.debian.org/debian"
RELEASE = "bookworm"
BINFMT = Path("/proc/sys/fs/binfmt_misc")


def call(*words: str, **options: object) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{words}: {done.stderr[-500:]}"


def register_qemu() -> None:
    """Have the kernel execute Arm programs with qemu, as the package does where systemd runs."""
    if not (BINFMT / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "none", str(BINFMT)], capture_output=True, check=False)
    configuration = Path("/usr/lib/binfmt.d/qemu-aarch64.conf")
    if not (BINFMT / "qemu-aarch64").exists() and configuration.exists():
        with contextlib.suppress(OSError):
            (BINFMT / "register").write_text(configuration.read_text())


def make_userland(place: Path) -> None:
    """Python for Arm and what it needs. Unpacked, not configured: dpkg in an emulator takes a quarter of an hour."""
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".arm64-", dir=place.parent))
    try:
        options = ["--arch=arm64", "--foreign", "--variant=minbase", "--include=python3,python3-venv"]
        call("debootstrap", *options, RELEASE, str(temporary), MIRROR)
        for package in sorted((temporary / "var/cache/apt/archives").glob("*.deb")):
            with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as unpack:
                call("tar", "-x", "--keep-directory-symlink", "-C", str(temporary), stdin=unpack.stdout)
            package.unlink()
        (temporary / "proc").unlink(missing_ok=True)
        (temporary / "proc").mkdir()
        temporary.chmod(0o755)
        temporary.rename(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class ArmBoard(SshBoard):
    """A server whose sessions live in the Arm userland. `home` is bound into it."""

    def __init__(self, root: Path, public_key: str, userland: Path) -> None:
        self.userland = userland
        super().__init__(root, public_key)

    def start(self, path: str = "/usr/bin:/bin", more: str = "") -> None:
        inside = self.userland / "home" / "edgeq"
        fakes = self.userland / "fakes"
        for directory, source in ((inside, self.home), (fakes, self.fakes), (self.userland / "proc", Path("/proc"))):
            directory.mkdir(parents=True, exist_ok=True)
            if not directory.is_mount():
                call("mount", "--bind", str(source), str(directory))
        # An account without a password is locked for a server that runs as root.
        call("usermod", "-p", "*", USER)
        call("chown", "root:", str(self.root), str(self.root / "host_key"))
        Path("/run/sshd").mkdir(exist_ok=True)
        self.serve(f"HOME=/home/edgeq PATH=/fakes:{path} {more}", [f"ChrootDirectory {self.userland}"], as_user=False)

    def stop(self) -> None:
        super().stop()
        for directory in ("home/edgeq", "fakes", "proc"):
            subprocess.run(["umount", "-l", str(self.userland / directory)], capture_output=True, check=False)


@pytest.fixture(scope="module")
def userland() -> Path:
    if os.geteuid() != 0 or SSHD is None:
        pytest.skip("needs root and sshd")
    for tool in ("debootstrap", "qemu-aarch64-static", "dpkg-deb"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    register_qemu()
    if not (BINFMT / "qemu-aarch64").exists():
        pytest.skip("needs binfmt_misc with qemu-aarch64")
    cache = Path(os.environ.get("EDGEQ_CACHE", Path.home() / ".cache" / "edgeq"))
    place = cache / f"arm64-{RELEASE}"
    if not place.is_dir():
        make_userland(place)
    return place


@pytest.fixture
def board(ssh_root: Path, client: Client, userland: Path) -> Iterator[ArmBoard]:
    board = ArmBoard(ssh_root / "arm64", client.public_key, userland)
    client.know(board)
    yield board
    board.stop()


def test_the_whole_path_on_arm(board: ArmBoard, client: Client, ssh_root: Path, shared: Path) -> None:
    path = shared / "models" / "kws_ref_int8.tflite"
    data = np.load(shared / "data" / "kws01.npz")
    (deployed,) = ssh.deploy(path, "pi", host(board)).results
    assert isinstance(deployed, ssh.Deployment)
    assert (deployed.device.machine, deployed.device.glibc) == ("aarch64", (2, 36))
    assert deployed.runtime == "ai-edge-litert 2.3.0"
    libraries = [path for path in (board.store / "env").rglob("*.so") if "interpreter_wrapper" in path.name]
    assert libraries
    assert all(library.read_bytes()[18:20] == b"\xb7\x00" for library in libraries), "not Arm code"
    x, y = data["x_int8"][:100], data["y"][:100]
    (result,) = ssh.bench_remote(path, "pi", host(board), x=x, y=y, runs=5, operators=False).results
    assert isinstance(result, ssh.RemoteBench)
    exact = result.comparisons[0]
    assert (exact.kernels, exact.samples, exact.differing) == ("reference", 100, 0)
    assert isinstance(exact.accuracy, Measured)
    assert isinstance(exact.host_accuracy, Measured)
    assert exact.accuracy.value == exact.host_accuracy.value
    other = ssh_root / "other-arm.tflite"
    other.write_bytes(small_model(1))
    assert ssh.deploy(other, "pi", host(board)).ok
    assert ssh.rollback("pi", host(board)).ok
    assert board.current == deployed.release
    assert ssh.deploy(path, "pi", host(board), runtime="c").ok
    (compiled,) = ssh.bench_remote(path, "pi", host(board), x=x[:20], y=y[:20], runs=3).results
    assert isinstance(compiled, ssh.RemoteBench)
    assert compiled.comparisons[0].kernels == "generated-c"
    assert compiled.comparisons[0].differing == 0
    assert ssh.uninstall("pi", host(board)).ok
    assert not board.store.exists()
    assert fails(lambda: ssh.bench_remote(None, "pi", host(board))).code == "nothing-deployed"
