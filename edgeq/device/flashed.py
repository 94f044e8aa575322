"""What was flashed last: the image and the bundle's manifest; a virtual board boots it, `bench` takes names from it.

For a virtual board this is its flash content; for a real one it is only a memory of the last `edgeq flash`, and what
the board answers to HELLO decides.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from edgeq.device.state import state_directory
from edgeq.errors import DeviceError
from edgeq.files import write_directory
from edgeq.toolchain import Image, Sizes

_RECORD = "flash.json"
_SCHEMA = "edgeq.flashed/1"


@dataclass(frozen=True, slots=True)
class Flashed:
    """An image with the manifest of the bundle that it was built of."""

    image: Image
    manifest: bytes

    def store(self, board_id: str) -> Path:
        """Keep it as what `board_id` holds, whole or not at all; the image's new place."""
        place = _place(board_id)
        with write_directory(place, owned_marker=_RECORD) as directory:
            shutil.copy(self.image.elf, directory / "firmware.elf")
            (directory / "manifest.json").write_bytes(self.manifest)
            record = {**asdict(self.image), "schema": _SCHEMA}
            del record["elf"], record["bin"]
            (directory / _RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        return place / "firmware.elf"


def load_flashed(board_id: str) -> Flashed | None:
    """What was stored for `board_id`; None if nothing was. DeviceError `flash-content-broken` if it cannot be read."""
    place = _place(board_id)
    if not (place / _RECORD).is_file():
        return None
    try:
        record = json.loads((place / _RECORD).read_bytes())
        if record.pop("schema") != _SCHEMA:
            raise ValueError("another schema")
        sizes = Sizes(**record.pop("sizes"))
        flags = tuple(record.pop("flags"))
        image = Image(elf=place / "firmware.elf", bin=None, flags=flags, sizes=sizes, **record)
        manifest = (place / "manifest.json").read_bytes()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DeviceError(
            "flash-content-broken",
            f"What is kept of the last flash of {board_id} cannot be read.",
            where=str(place),
            why=str(error),
            try_=f"Flash it anew: edgeq flash MODEL --board {board_id}",
        ) from error
    return Flashed(image, manifest)


def _place(board_id: str) -> Path:
    return state_directory() / "boards" / board_id
