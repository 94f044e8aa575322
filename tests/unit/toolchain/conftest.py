"""The hand-written bundle and the plain link client of tests/device serve here, too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "device"))
