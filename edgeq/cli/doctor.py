"""`edgeq doctor`."""

from __future__ import annotations

from edgeq.cli.common import DebugOption, JsonOption, QuietOption, Verb


def doctor(json: JsonOption = False, quiet: QuietOption = False, debug: DebugOption = False) -> None:
    """Look at compilers, emulators, flash tools, ports and the link; each line says what to do."""
    with Verb("doctor", json=json, quiet=quiet, debug=debug) as verb:
        from edgeq.device.doctor import doctor as examine
        from edgeq.report.device_text import render_doctor

        report = examine()
        verb.finish(report.to_json(), lambda console: render_doctor(console, report), ok=report.ok)
