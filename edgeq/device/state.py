"""Where EdgeQ keeps what outlives a command: the flash content of virtual boards, built images.

`EDGEQ_STATE`, else the user's state directory: `$XDG_STATE_HOME/edgeq` or `~/.local/state/edgeq` on Linux,
`~/Library/Application Support/edgeq` on macOS, `%LOCALAPPDATA%\\edgeq` on Windows.

    boards/<id>/       what the virtual board's flash holds: firmware.elf, manifest.json, flash.json
    images/<id>/<model>/   the image last built for a board, used again while nothing that shapes it changes
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def state_directory() -> Path:
    """The directory; it need not exist."""
    named = os.environ.get("EDGEQ_STATE")
    if named:
        return Path(named)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "edgeq"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "edgeq"
    return Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local" / "state")) / "edgeq"
