"""Runs a command and ends it when standard input does: `python guard.py LINE COMMAND...`.

So no emulator outlives the program that started it, however that one ends. LINE is the number of an inherited file
descriptor that becomes the command's standard input and output, or `-` for none. Imports the standard library alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading


def main(arguments: list[str]) -> int:
    """The command's exit status."""
    line = None if arguments[0] == "-" else int(arguments[0])
    standard = subprocess.DEVNULL if line is None else line
    try:
        process = subprocess.Popen(
            arguments[1:], stdin=standard, stdout=standard, close_fds=line is not None, start_new_session=True
        )
    except OSError as error:
        sys.stderr.write(f"{arguments[1]}: {error.strerror}\n")
        return 127
    if line is not None:
        os.close(line)

    def end_with_input() -> None:
        while os.read(0, 1024):
            pass
        process.kill()

    threading.Thread(target=end_with_input, daemon=True).start()
    return process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
