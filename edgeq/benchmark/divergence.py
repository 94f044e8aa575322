"""Where a board and this computer part ways: the first layer whose output differs, with the values.

Both run the same model, but not the same kernels, and their arenas are planned apart. A layer's output is captured on
both right after the layer, since later layers reuse its place; layers that compute the same tensor have its name.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeq.benchmark.manifest import BenchManifest, Layer
from edgeq.benchmark.result import LayerDivergence
from edgeq.device.messages import Capture, Space
from edgeq.device.session import Session

_SHOWN_BYTES = 16
Side = tuple[Session, BenchManifest | None]


def diverging_layer(board: Side, host: Side, sample: Sequence[bytes]) -> LayerDivergence | None:
    """The first layer whose output differs; None if none does, or if the manifests do not say where outputs lie."""
    suspect_from = 0
    for layer, counterpart in _pairs(board[1], host[1]):
        ours, theirs = _output(board[0], layer, sample), _output(host[0], counterpart, sample)
        if ours != theirs:
            at = next(i for i, (got, expected) in enumerate(zip(ours, theirs, strict=True)) if got != expected)
            shown = slice(at, at + _SHOWN_BYTES)
            return LayerDivergence(layer.index, suspect_from, layer.name, layer.output, at, ours[shown], theirs[shown])
        suspect_from = layer.index + 1
    return None


def _pairs(board: BenchManifest | None, host: BenchManifest | None) -> list[tuple[Layer, Layer]]:
    if board is None or host is None:
        return []
    by_output = {layer.output: layer for layer in host.layers if layer.output_offset is not None}
    pairs = []
    for layer in board.layers:
        counterpart = by_output.get(layer.output)
        if layer.output_offset is None or counterpart is None:
            continue
        if (layer.output_bytes, layer.output_layout) == (counterpart.output_bytes, counterpart.output_layout):
            pairs.append((layer, counterpart))
    return pairs


def _output(session: Session, layer: Layer, sample: Sequence[bytes]) -> bytes:
    """A layer's whole output, captured in as many runs as the board's spare memory demands."""
    start, length = layer.output_offset or 0, layer.output_bytes or 0
    window = min(session.info.spare_bytes, length)
    if window == 0:
        return b""
    parts = []
    for offset in range(0, length, window):
        parts.append(_captured(session, sample, Capture(layer.index, start + offset, min(window, length - offset))))
    return b"".join(parts)


def _captured(session: Session, sample: Sequence[bytes], place: Capture) -> bytes:
    session.reset_model()
    for index, data in enumerate(sample):
        session.write_input(index, data)
    session.run(capture=place)
    return session.read(Space.CAPTURE, 0, place.length)
