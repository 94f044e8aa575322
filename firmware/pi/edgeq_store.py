"""Keeps EdgeQ's releases under ~/.edgeq on a Linux board. Standard library alone; Python 3.9 to 3.13.

EdgeQ feeds `edgeq_agent.py` and then this file to the board's `python3`; it does not stay there. Requests and replies
are the agent's.

    ~/.edgeq/blobs/SHA256          files by content
             env/KEY/              virtual environments; EDGEQ-COMPLETE is written last
             releases/NNNNNN-ID/   manifest.json and links into blobs and env
             sessions/             the same, for the time of one measurement
             current               link to the release in use, replaced in one step
             lock                  held while a process changes anything; the system frees it when that process ends
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from edgeq_agent import Refusal, checked_name, facts, file_digest, serve_streams

KEPT_RELEASES = 3
UNIT = "edgeq.service"
COMPLETE = "EDGEQ-COMPLETE"

_DIGEST = re.compile(r"[0-9a-f]{64}")
_RELEASE = re.compile(r"\d{6}-[0-9a-f]{12}")


def checked_digest(digest):
    """`digest` if it is a SHA-256 in hex."""
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise Refusal("bad-request", f"not a SHA-256: {digest!r}")
    return digest


def sync_directory(path):
    """Make renames in `path` survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path, blocks):
    """Write a file from blocks of bytes beside its place, then rename it."""
    handle, name = tempfile.mkstemp(prefix=".part-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            for block in blocks:
                stream.write(block)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(path)
    except BaseException:
        remove(Path(name))
        raise
    sync_directory(path.parent)


def remove(path):
    """Remove a file, link or directory, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def call(words, code):
    """Run a program; Refusal `code` with its last words if it fails, OSError ENOSPC if the disk is full."""
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        full = next((line for line in lines if "No space left" in line or "Disk quota" in line), None)
        if full:
            raise OSError(errno.ENOSPC, full)
        raise Refusal(code, " / ".join(lines[-3:]) or f"{words[0]} ended with status {done.returncode}")


class Store:
    """Releases under ~/.edgeq. `open` comes first: it makes the directories and takes the lock."""

    def __init__(self):
        self.root = Path.home() / ".edgeq"
        self.blobs, self.environments = self.root / "blobs", self.root / "env"
        self.releases, self.sessions = self.root / "releases", self.root / "sessions"
        base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        self.unit = Path(base) / "systemd" / "user" / UNIT
        self.lock = None

    def open(self, _request, _payload):
        """Make the directories, take the lock, remove what an interrupted run left."""
        import fcntl

        parts = (self.blobs, self.environments, self.releases, self.sessions)
        for part in (self.root, *parts):
            part.mkdir(mode=0o700, exist_ok=True)
        lock = (self.root / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refusal("busy", "another EdgeQ is changing this board") from None
        self.lock = lock
        for part in (self.root, *parts):
            for left in part.glob(".part-*"):
                remove(left)
        for left in self.sessions.iterdir():
            remove(left)
        return {**self.status(), "free_bytes": shutil.disk_usage(self.root).free}

    def status(self, _request=None, _payload=None):
        """The release in use, and those kept."""
        releases = []
        for name in self._kept():
            with contextlib.suppress(OSError, ValueError):
                manifest = json.loads((self.releases / name / "manifest.json").read_text())
                releases.append({"release": name, "manifest": manifest})
        return {
            "installed": self.root.is_dir(),
            "directory": str(self.root),
            "current": self._current(),
            "releases": releases,
            "service": self.unit.exists(),
        }

    def missing(self, request, _payload):
        """Which of the files are not here yet."""
        digests = map(checked_digest, request["digests"])
        return {"missing": [digest for digest in digests if not (self.blobs / digest).exists()]}

    def put(self, request, payload):
        """Take a file; it appears under its digest, whole, or not at all."""
        digest, state = checked_digest(request["sha256"]), hashlib.sha256()

        def blocks():
            for block in iter(payload.read, b""):
                state.update(block)
                yield block
            if state.hexdigest() != digest:
                raise Refusal("damaged-in-transit", f"{digest} arrived as {state.hexdigest()}")

        write_whole(self.blobs / digest, blocks())
        return {}

    def has_environment(self, request, _payload):
        """Whether a complete environment of that key is here."""
        return {"complete": (self.environments / checked_name(request["key"]) / COMPLETE).exists()}

    def make_environment(self, request, _payload):
        """A virtual environment with the wheels installed by the pip among them; no network, no ensurepip."""
        home = self.environments / checked_name(request["key"])
        remove(home)
        links = Path(tempfile.mkdtemp(prefix=".part-", dir=self.environments))
        try:
            call([sys.executable, "-I", "-m", "venv", "--without-pip", str(home)], "environment-failed")
            wheels = {checked_name(wheel["name"]): checked_digest(wheel["sha256"]) for wheel in request["wheels"]}
            for name, digest in wheels.items():
                (links / name).symlink_to(self.blobs / digest)
            pip = next(links / name / "pip" for name in wheels if name.startswith("pip-"))
            install = [str(links / name) for name in wheels if not name.startswith("pip-")]
            options = ["--no-index", "--no-deps", "--no-cache-dir", "--disable-pip-version-check", "--quiet"]
            python = str(home / "bin" / "python")
            call([python, str(pip), "install", *options, *install], "environment-failed")
            write_whole(home / COMPLETE, [json.dumps(wheels).encode()])
        except BaseException:
            remove(home)
            raise
        finally:
            remove(links)
        return {}

    def stage(self, request, _payload):
        """A release from files that are here, each hashed again; it is not in use yet."""
        number = 1 + max((int(name.split("-")[0]) for name in self._kept()), default=0)
        text = json.dumps(request["manifest"], indent=1, sort_keys=True).encode()
        name = f"{number:06d}-{hashlib.sha256(text).hexdigest()[:12]}"
        self._directory(self.releases / name, request["manifest"], text)
        return {"release": name, "directory": str(self.releases / name)}

    def session(self, request, _payload):
        """A directory as `stage` makes, for one measurement; `end_session` or the next `open` removes it."""
        name = f"{os.getpid()}-{time.time_ns()}"
        self._directory(self.sessions / name, request["manifest"], json.dumps(request["manifest"]).encode())
        return {"session": name, "directory": str(self.sessions / name)}

    def end_session(self, request, _payload):
        """Remove a measurement's directory and the files that only it used."""
        remove(self.sessions / checked_name(request["session"]))
        self._collect()
        return {}

    def switch(self, request, _payload):
        """Use a staged release from now on; the service, if there is one, must come up with it or all stays."""
        name, before = request["release"], self._current()
        if name not in self._kept():
            raise Refusal("no-such-release", f"{name!r} is not on this board")
        service = request.get("service") or self.unit.exists()
        if service and not shutil.which("systemctl"):
            raise Refusal("no-systemd", "this board has no systemctl")
        # What was rolled back is not what a later rollback means.
        for skipped in self._kept():
            if before and before < skipped < name:
                remove(self.releases / skipped)
        self._point(name)
        if service:
            try:
                self._restart()
            except Refusal:
                if before:
                    self._point(before)
                    with contextlib.suppress(Refusal):
                        self._restart()
                raise
        self._collect()
        return {"previous": before, **self.status()}

    def rollback(self, _request, payload):
        """Use the release before the one in use."""
        current = self._current()
        older = [name for name in self._kept() if current and name < current]
        if not older:
            raise Refusal("no-earlier-release", f"in use is {current}; kept are: {', '.join(self._kept())}")
        return self.switch({"release": older[-1]}, payload)

    def discard(self, request, _payload):
        """Remove a staged release that is not in use."""
        name = checked_name(request["release"])
        if name != self._current():
            remove(self.releases / name)
        return {}

    def uninstall(self, _request, _payload):
        """Remove the service and everything under ~/.edgeq."""
        if self.unit.exists():
            for words in (["disable", "--now", UNIT], ["daemon-reload"]):
                subprocess.run(["systemctl", "--user", *words], capture_output=True, check=False)
            self.unit.unlink()
        there = self.root.is_dir()
        if there:
            remove(self.root / "current")
            shutil.rmtree(self.root)
        return {"removed": there}

    def _kept(self):
        try:
            return sorted(path.name for path in self.releases.iterdir() if _RELEASE.fullmatch(path.name))
        except FileNotFoundError:
            return []

    def _current(self):
        try:
            return (self.root / "current").readlink().name
        except OSError:
            return None

    def _point(self, name):
        temporary = self.root / f".part-current-{os.getpid()}"
        remove(temporary)
        temporary.symlink_to(Path("releases") / name)
        temporary.replace(self.root / "current")
        sync_directory(self.root)

    def _directory(self, place, manifest, text):
        temporary = Path(tempfile.mkdtemp(prefix=".part-", dir=place.parent))
        try:
            for name, entry in manifest["files"].items():
                blob = self.blobs / checked_digest(entry["sha256"])
                if not blob.exists() or file_digest(blob) != entry["sha256"]:
                    remove(blob)
                    raise Refusal("file-damaged", f"{name} is not here as it was sent")
                (temporary / checked_name(name)).symlink_to(Path("../../blobs") / blob.name)
            if manifest.get("environment"):
                (temporary / "env").symlink_to(Path("../../env") / checked_name(manifest["environment"]))
            write_whole(temporary / "manifest.json", [text])
            temporary.replace(place)
        except BaseException:
            remove(temporary)
            raise
        sync_directory(place.parent)

    def _collect(self):
        """Remove releases beyond the kept ones, then blobs and environments that nothing names."""
        current = self._current()
        for name in self._kept()[:-KEPT_RELEASES]:
            if name != current:
                remove(self.releases / name)
        used = set()
        for home in (*(self.releases / name for name in self._kept()), *self.sessions.iterdir()):
            with contextlib.suppress(OSError, ValueError):
                manifest = json.loads((home / "manifest.json").read_text())
                used.update(entry["sha256"] for entry in manifest["files"].values())
                used.add(manifest.get("environment"))
        for path in (*self.blobs.iterdir(), *self.environments.iterdir()):
            if path.name not in used:
                remove(path)

    def _restart(self):
        """Start the service anew with the release in use; Refusal unless it stays up."""
        here = "%h/.edgeq/current"
        python = f"{here}/env/bin/python" if (self.root / "current" / "env").exists() else sys.executable
        text = (
            "[Unit]\nDescription=EdgeQ inference\n\n"
            f"[Service]\nExecStart={python} -I {here}/edgeq_agent.py serve {here} %h/.edgeq/socket\n"
            "Restart=on-failure\n\n[Install]\nWantedBy=default.target\n"
        )
        self.unit.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.unit, [text.encode()])
        subprocess.run(["loginctl", "enable-linger"], capture_output=True, check=False)
        for words in (["daemon-reload"], ["enable", UNIT], ["restart", UNIT]):
            call(["systemctl", "--user", *words], "service-failed")
        time.sleep(1)
        call(["systemctl", "--user", "is-active", UNIT], "service-failed")

    def handlers(self):
        """Command -> its function."""
        names = (
            "open status missing put has_environment make_environment stage session end_session switch rollback "
            "discard uninstall"
        )
        return {"facts": facts, **{name: getattr(self, name) for name in names.split()}}


if __name__ == "__main__":
    serve_streams(Store().handlers())
