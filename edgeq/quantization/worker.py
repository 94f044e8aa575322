"""The child process of a conversion: `python -m edgeq.quantization.worker JOB`.

JOB is a directory with `job.json` and the data's arrays; the child leaves `result.json` (a result or an error) and
`model.tflite` in it. Progress goes to standard output, one JSON array a line; everything that TensorFlow prints goes
to `log`.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from pathlib import Path

from edgeq.errors import EdgeqError


def main(directory: Path) -> None:
    """Run the job and leave its result; an error that a user can understand is a result too."""
    report = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    log = os.open(directory / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.enable()

    def progress(what: str, done: int, total: int | None) -> None:
        report.write(json.dumps([what, done, total]) + "\n")

    try:
        progress("loading TensorFlow", 0, None)
        from edgeq.quantization.pipeline import run

        result = run(directory, json.loads((directory / "job.json").read_text()), progress)
    except EdgeqError as error:
        result = {"error": error.to_json(), "class": type(error).__name__}
    except ImportError as error:
        result = {
            "class": "ToolError",
            "error": {
                "code": "tensorflow-missing",
                "what": "Converting needs TensorFlow and Keras, and they cannot be imported.",
                "where": None,
                "why": str(error),
                "try": ["pip install 'edgeq[convert]'"],
            },
        }
    (directory / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
