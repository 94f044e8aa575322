"""EdgeQ takes a Keras model to a small device and proves that it works there.

Names resolve when first used, so that `import edgeq` loads neither numpy nor TensorFlow nor an interpreter.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "bench": "edgeq.api",
    "bundle": "edgeq.api",
    "check": "edgeq.api",
    "convert": "edgeq.api",
    "demo": "edgeq.api",
    "flash": "edgeq.api",
    "bench_hosts": "edgeq.api",
    "deploy": "edgeq.api",
    "fix": "edgeq.api",
    "rollback": "edgeq.api",
    "uninstall": "edgeq.api",
    "load_board": "edgeq.boards",
    "quantize_aware": "edgeq.quantization.aware",
    "EdgeqError": "edgeq.errors",
}

__all__ = [
    "EdgeqError",
    "__version__",
    "bench",
    "bench_hosts",
    "bundle",
    "check",
    "convert",
    "demo",
    "deploy",
    "fix",
    "flash",
    "load_board",
    "quantize_aware",
    "rollback",
    "uninstall",
]

if TYPE_CHECKING:
    from edgeq.api import bench, bench_hosts, bundle, check, convert, demo, deploy, fix, flash, rollback, uninstall
    from edgeq.boards import load_board
    from edgeq.errors import EdgeqError
    from edgeq.quantization.aware import quantize_aware


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'edgeq' has no attribute {name!r}")
