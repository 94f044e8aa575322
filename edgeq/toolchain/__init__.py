"""From a bundle directory and a board to a firmware image: agent, port and generated C, compiled and linked.

`build` is the entry. A compiler is arm-none-eabi-gcc (or the prefix that the board's profile names) if it is on the
PATH, else `zig cc`; for the host cc, gcc, clang or `zig cc`.
"""

from edgeq.toolchain.build import build, model_source
from edgeq.toolchain.compilers import Compiler, find_compiler
from edgeq.toolchain.image import Image, Location, Sizes
from edgeq.toolchain.manifest import Manifest, read_manifest

__all__ = [
    "Compiler",
    "Image",
    "Location",
    "Manifest",
    "Sizes",
    "build",
    "find_compiler",
    "model_source",
    "read_manifest",
]
