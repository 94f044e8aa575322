"""EdgeQ's agent on a Linux board: standard library, and numpy with a TFLite interpreter where the model needs them.

    edgeq_agent.py run DIRECTORY         execute what the manifest in DIRECTORY names, and nothing else
    edgeq_agent.py serve DIRECTORY SOCK  the same for applications on the board, over a Unix socket

A request is one line of JSON, {"id": 1, "command": "...", "payload_bytes": 0, ...}, and as many raw bytes as it says.
The reply is {"id": 1, "result": {...}, "payload_bytes": 0} or {"id": 1, "error": {"code", "why", "errno"}}, likewise.
Standard input and output carry it; no port is opened. Python 3.9 to 3.13.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import math
import os
import platform
import re
import socketserver
import subprocess
import sys
import threading
import time
from pathlib import Path

VERSION = 1
LINE_BYTES = 1 << 22
PAYLOAD_BYTES = 1 << 26

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")


class Refusal(Exception):
    """A request that is not carried out; `code` is stable."""

    def __init__(self, code, why):
        super().__init__(why)
        self.code, self.why = code, why


def checked_name(name):
    """`name` if it is a plain file name, so that no request reaches outside its directory."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Refusal("bad-request", f"not a plain file name: {name!r}")
    return name


def file_digest(path):
    """SHA-256 of a file, in hex."""
    state = hashlib.sha256()
    with Path(path).open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            state.update(block)
    return state.hexdigest()


class Payload:
    """The raw bytes behind a request's line."""

    def __init__(self, stream, count):
        self.stream, self.left = stream, count

    def read(self, most=1 << 20):
        """The next bytes, empty at the end."""
        block = self.stream.read(min(most, self.left)) if self.left else b""
        if self.left and not block:
            raise EOFError
        self.left -= len(block)
        return block

    def all(self):
        """Everything that is left."""
        if self.left > PAYLOAD_BYTES:
            raise Refusal("bad-request", f"more than {PAYLOAD_BYTES} bytes at once")
        return b"".join(iter(self.read, b""))


def answer(stream, handlers, out):
    """Serve one request; False at the end of the input."""
    line = stream.readline(LINE_BYTES)
    if not line.endswith(b"\n"):
        return False
    number, payload, body = None, None, b""
    try:
        request = json.loads(line)
        if not isinstance(request, dict):
            raise Refusal("bad-request", "a request is an object")
        number = request.get("id")
        count = request.get("payload_bytes", 0)
        if not isinstance(count, int) or count < 0:
            raise Refusal("bad-request", "payload_bytes is a number >= 0")
        payload = Payload(stream, count)
        handler = handlers.get(request.get("command"))
        if handler is None:
            raise Refusal("unknown-command", f"{request.get('command')!r}; known: {', '.join(sorted(handlers))}")
        result = handler(request, payload)
        if isinstance(result, tuple):
            result, body = result
        reply = {"id": number, "result": result, "payload_bytes": len(body)}
    except EOFError:
        return False
    except Refusal as refusal:
        reply = {"id": number, "error": {"code": refusal.code, "why": refusal.why}}
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "EIO")
        why = f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
        reply = {"id": number, "error": {"code": "system-error", "errno": name, "why": why}}
    except Exception as error:
        reply = {"id": number, "error": {"code": "failed", "why": f"{type(error).__name__}: {error}"}}
    if payload is not None:
        with contextlib.suppress(EOFError):
            while payload.read():
                pass
    out.write(json.dumps(reply).encode() + b"\n" + body)
    out.flush()
    return True


def facts(_request=None, _payload=None):
    """What runs here."""
    libc = os.confstr("CS_GNU_LIBC_VERSION") if hasattr(os, "confstr") else None
    return {
        "agent": VERSION,
        "python": list(sys.version_info[:3]),
        "implementation": sys.implementation.name,
        "machine": platform.machine(),
        "bits": 64 if sys.maxsize > 1 << 32 else 32,
        "libc": libc,
        "cores": len(os.sched_getaffinity(0)),
        "pid": os.getpid(),
    }


def read_text(path):
    """A small file's text, or None."""
    try:
        return Path(path).read_text().strip("\0\n ")
    except (OSError, UnicodeDecodeError):
        return None


def health(_request=None, _payload=None):
    """Governor, clocks, temperatures, throttling, as far as the system tells."""
    governors, clocks, temperatures = [], [], {}
    for directory in sorted(Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq")):
        governors.append(read_text(directory / "scaling_governor"))
        clocks.append(read_text(directory / "scaling_cur_freq"))
    for zone in sorted(Path("/sys/class/thermal").glob("thermal_zone*")):
        value = read_text(zone / "temp")
        if value and value.lstrip("-").isdigit():
            temperatures[read_text(zone / "type") or zone.name] = int(value) / 1000
    throttled = None
    with contextlib.suppress(OSError, ValueError, IndexError):
        done = subprocess.run(["vcgencmd", "get_throttled"], capture_output=True, text=True, check=False, timeout=5)
        throttled = int(done.stdout.strip().split("=")[1], 16)
    return {
        "governors": sorted({governor for governor in governors if governor}),
        "clocks_hz": [int(clock) * 1000 for clock in clocks if clock and clock.isdigit()],
        "temperatures_celsius": temperatures,
        "throttled": throttled,
        "load_average": os.getloadavg()[0],
    }


def peak_bytes():
    """The most memory that this process ever held (VmHWM)."""
    found = re.search(r"^VmHWM:\s*(\d+) kB", read_text("/proc/self/status") or "", re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def edge_tpu():
    """The Edge TPU's runtime and how many accelerators it sees; Refusal if there is none."""
    for name in ("libedgetpu.so.1", "libedgetpu.so"):
        try:
            library = ctypes.CDLL(name)
            break
        except OSError as error:
            reason = str(error)
    else:
        raise Refusal("edgetpu-runtime-missing", reason)
    library.edgetpu_version.restype = ctypes.c_char_p
    library.edgetpu_list_devices.restype = ctypes.c_void_p
    library.edgetpu_free_devices.argtypes = [ctypes.c_void_p]
    count = ctypes.c_size_t(0)
    library.edgetpu_free_devices(library.edgetpu_list_devices(ctypes.byref(count)))
    version = library.edgetpu_version().decode(errors="replace")
    if not count.value:
        raise Refusal("edgetpu-not-found", f"the runtime ({version}) sees no accelerator")
    return {"library": name, "version": version, "devices": count.value}


class LiteRt:
    """A `.tflite` model in the interpreter that the environment has."""

    def __init__(self, path, request):
        module, self.package, self.version = self._interpreter()
        kinds = module.OpResolverType
        resolver = {
            "xnnpack": kinds.AUTO,
            "builtin": kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            "reference": kinds.BUILTIN_REF,
        }[request.get("kernels", "xnnpack")]
        self.edge_tpu, delegates = None, []
        if request.get("delegate") == "edgetpu":
            self.edge_tpu = edge_tpu()
            try:
                delegates = [module.load_delegate(self.edge_tpu["library"])]
            except (ValueError, OSError, AttributeError) as error:
                raise Refusal("edgetpu-delegate-failed", str(error)) from None
        started = time.perf_counter_ns()
        try:
            self.interpreter = module.Interpreter(
                model_path=path,
                num_threads=int(request.get("threads", 1)),
                experimental_op_resolver_type=resolver,
                experimental_delegates=delegates,
            )
            self.interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            text = str(error).strip()
            code = "edgetpu-delegate-needed" if "edgetpu-custom-op" in text else "model-refused"
            raise Refusal(code, text.splitlines()[0] if text else type(error).__name__) from None
        self.load_us = (time.perf_counter_ns() - started) / 1000
        self.inputs = [self._describe(d) for d in self.interpreter.get_input_details()]
        self.outputs = [self._describe(d) for d in self.interpreter.get_output_details()]

    @staticmethod
    def _interpreter():
        from importlib import import_module, metadata

        for module, package in (("ai_edge_litert", "ai-edge-litert"), ("tflite_runtime", "tflite-runtime")):
            try:
                found = import_module(module + ".interpreter")
            except ModuleNotFoundError:
                continue
            except ImportError as error:
                raise Refusal("interpreter-broken", str(error)) from None
            return found, package, metadata.version(package)
        raise Refusal("interpreter-missing", "neither ai-edge-litert nor tflite-runtime is installed here")

    @staticmethod
    def _describe(details):
        import numpy

        shape = [int(n) for n in details["shape"]]
        dtype = numpy.dtype(details["dtype"])
        size = math.prod(shape) * dtype.itemsize
        return {"index": int(details["index"]), "dtype": dtype.name, "shape": shape, "bytes": size}

    def write(self, index, raw):
        """Set an input from its bytes."""
        import numpy

        entry = self.inputs[index]
        value = numpy.frombuffer(raw, dtype=entry["dtype"]).reshape(entry["shape"])
        self.interpreter.set_tensor(entry["index"], value)

    def invoke(self):
        """One inference."""
        self.interpreter.invoke()

    def read(self, index):
        """An output's bytes."""
        return self.interpreter.get_tensor(self.outputs[index]["index"]).tobytes()

    def details(self):
        """What was loaded, and whether a delegate took operators."""
        names = [operator["op_name"] for operator in self.interpreter._get_ops_details()]
        return {
            "package": self.package,
            "version": self.version,
            "delegated": names.count("DELEGATE"),
            "edge_tpu": self.edge_tpu,
        }


class GeneratedC:
    """EdgeQ's generated C as a shared library."""

    def __init__(self, path, about):
        started = time.perf_counter_ns()
        try:
            library = ctypes.CDLL(path)
        except OSError as error:
            raise Refusal("library-refused", str(error)) from None
        self.name, align = about["name"], about["arena_align"]
        self._store = ctypes.create_string_buffer(about["arena_bytes"] + align)
        self._arena = ctypes.c_void_p(-(-ctypes.addressof(self._store) // align) * align)
        self._input, self._output = library[self.name + "_input"], library[self.name + "_output"]
        self._invoke, reset = library[self.name + "_invoke"], library[self.name + "_reset"]
        for function in (self._input, self._output):
            function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_int], ctypes.c_void_p
        self._invoke.argtypes, self._invoke.restype = [ctypes.c_void_p], ctypes.c_int32
        reset.argtypes, reset.restype = [ctypes.c_void_p], None
        reset(self._arena)
        self.load_us = (time.perf_counter_ns() - started) / 1000
        self.inputs, self.outputs = about["inputs"], about["outputs"]

    def write(self, index, raw):
        """Set an input from its bytes."""
        ctypes.memmove(self._input(self._arena, index), raw, len(raw))

    def invoke(self):
        """One inference."""
        status = self._invoke(self._arena)
        if status:
            raise Refusal("model-failed", f"{self.name}_invoke returned {status}")

    def read(self, index):
        """An output's bytes."""
        return ctypes.string_at(self._output(self._arena, index), self.outputs[index]["bytes"])

    def details(self):
        """What was loaded."""
        return {"package": "generated-c", "version": None, "delegated": 0, "edge_tpu": None}


class Runner:
    """Executes a release's files. What its manifest does not name, or what differs from it, is refused."""

    def __init__(self, directory):
        # Resolved once: a later deployment moves the link, not this process.
        self.directory, self.model, self.guard = Path(directory).resolve(), None, threading.Lock()
        try:
            self.manifest = json.loads((self.directory / "manifest.json").read_text())
        except (OSError, ValueError) as error:
            raise Refusal("nothing-deployed", str(error)) from None
        for name, entry in self.manifest["files"].items():
            try:
                found = file_digest(self.directory / checked_name(name))
            except FileNotFoundError:
                raise Refusal("file-damaged", f"{name} is in the manifest but not here") from None
            if found != entry["sha256"]:
                raise Refusal("file-damaged", f"{name} is not the file that the manifest names")

    def hello(self, _request, _payload):
        """What runs here, and the manifest it obeys."""
        return {**facts(), "manifest": self.manifest}

    def load(self, request, _payload):
        """Load a file of the manifest (the model, unless named): kernels, threads, delegate as asked."""
        name = request.get("file", self.manifest["model"])
        if name not in self.manifest["files"]:
            raise Refusal("not-in-manifest", f"{name!r} is not in the manifest")
        self.model = None
        path = str(self.directory / name)
        about = self.manifest.get("generated_c")
        self.model = GeneratedC(path, about) if about and name == self.manifest["model"] else LiteRt(path, request)
        return {
            "load_us": self.model.load_us,
            "inputs": self.model.inputs,
            "outputs": self.model.outputs,
            **self.model.details(),
        }

    def run(self, request, payload):
        """`count` inferences on the payload's inputs; the outputs' bytes go back, and each invoke's microseconds."""
        model, raw, count = self._loaded(), payload.all(), int(request["count"])
        need = sum(entry["bytes"] for entry in model.inputs)
        if len(raw) != need * count:
            raise Refusal("bad-request", f"{count} inputs are {need * count} bytes, not {len(raw)}")
        outputs, times = [], []
        with self.guard:
            for at in range(0, len(raw), need):
                self._write(raw[at : at + need])
                started = time.perf_counter_ns()
                model.invoke()
                times.append((time.perf_counter_ns() - started) / 1000)
                outputs += [model.read(index) for index in range(len(model.outputs))]
        return {"invoke_us": times, "peak_bytes": peak_bytes()}, b"".join(outputs)

    def _write(self, raw):
        at = 0
        for index, entry in enumerate(self.model.inputs):
            self.model.write(index, raw[at : at + entry["bytes"]])
            at += entry["bytes"]

    def repeat(self, request, payload):
        """The same input `runs` times, for times alone; stops early after `longest_s`."""
        model, raw = self._loaded(), payload.all()
        times, end = [], time.monotonic() + float(request.get("longest_s", 60))
        for _ in range(int(request["runs"])):
            self._write(raw)
            started = time.perf_counter_ns()
            model.invoke()
            times.append((time.perf_counter_ns() - started) / 1000)
            if time.monotonic() > end:
                break
        return {"invoke_us": times, "peak_bytes": peak_bytes()}

    def fetch(self, request, _payload):
        """A file of the manifest, back."""
        name = request.get("file", self.manifest["model"])
        if name not in self.manifest["files"]:
            raise Refusal("not-in-manifest", f"{name!r} is not in the manifest")
        return {}, (self.directory / name).read_bytes()

    def describe(self, _request, _payload):
        """Inputs and outputs, for an application."""
        model = self._loaded()
        return {"inputs": model.inputs, "outputs": model.outputs, "model_sha256": self.manifest["model_sha256"]}

    def handlers(self):
        """Command -> its function."""
        names = ("hello", "load", "run", "repeat", "fetch", "describe")
        return {"health": health, **{name: getattr(self, name) for name in names}}

    def _loaded(self):
        if self.model is None:
            raise Refusal("not-loaded", "load comes first")
        return self.model


def serve(directory, path):
    """Answer applications on a Unix socket that only this user can open: `describe` and `run`."""
    runner = Runner(directory)
    runner.load(runner.manifest.get("defaults", {}), None)
    handlers = {"describe": runner.describe, "run": runner.run}

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            with contextlib.suppress(ConnectionError):
                while answer(self.rfile, handlers, self.wfile):
                    pass

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True

    with contextlib.suppress(FileNotFoundError):
        Path(path).unlink()
    os.umask(0o177)
    with Server(path, Handler) as server:
        server.serve_forever()


def serve_streams(handlers):
    """Answer on the standard streams until the input ends."""
    # What libraries print must not get between the replies.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while answer(sys.stdin.buffer, handlers, out):
        pass


def main(arguments):
    """Entry point; see the top of the file."""
    if arguments[0] == "serve":
        serve(arguments[1], arguments[2])
        return

    def refuse(_request, _payload):
        raise failure

    try:
        handlers = Runner(arguments[1]).handlers()
    except Refusal as refusal:
        failure, handlers = refusal, {"hello": refuse}
    serve_streams(handlers)


if __name__ == "__main__":
    main(sys.argv[1:])
