"""`edgeq devices`."""

from __future__ import annotations

from edgeq.cli.common import DebugOption, JsonOption, QuietOption, Verb


def devices(json: JsonOption = False, quiet: QuietOption = False, debug: DebugOption = False) -> None:
    """List the boards in reach: serial ports with the boards that they may be, and virtual boards."""
    with Verb("devices", json=json, quiet=quiet, debug=debug) as verb:
        from edgeq.device import devices as find
        from edgeq.report.device_text import render_devices

        report = find()
        verb.finish(report.to_json(), lambda console: render_devices(console, report))
