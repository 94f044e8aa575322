"""Where two boards that run the same bundle part ways: the first layer whose output differs, with the values.

Both capture a layer's output right after the layer, since later layers reuse its place. Where the manifest does not say
where it lies, the whole arena is compared, scratch included.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeq.benchmark.manifest import BenchManifest, Layer
from edgeq.benchmark.result import LayerDivergence
from edgeq.device.messages import Capture, Space
from edgeq.device.session import Session

_SHOWN_BYTES = 16


def diverging_layer(
    board: Session, host: Session, sample: Sequence[bytes], manifest: BenchManifest | None
) -> LayerDivergence | None:
    """The first layer whose output differs; None if none is found or the board has no room for a capture."""
    window = min(board.info.spare_bytes, host.info.spare_bytes)
    if window == 0:
        return None
    named = {entry.index: entry for entry in manifest.layers} if manifest is not None else {}
    for index in range(board.info.layers):
        layer = named.get(index) or Layer(index=index, name=f"layer {index}")
        start, length = 0, board.info.arena_bytes
        if layer.output_offset is not None and layer.output_bytes is not None:
            start, length = layer.output_offset, layer.output_bytes
        for offset in range(start, start + length, window):
            place = Capture(index, offset, min(window, start + length - offset))
            ours, theirs = (_captured(session, sample, place) for session in (board, host))
            if ours != theirs:
                at = next(i for i, (got, expected) in enumerate(zip(ours, theirs, strict=True)) if got != expected)
                shown = slice(at, at + _SHOWN_BYTES)
                return LayerDivergence(index, layer.name, layer.output, offset + at, ours[shown], theirs[shown])
    return None


def _captured(session: Session, sample: Sequence[bytes], place: Capture) -> bytes:
    session.reset_model()
    for index, data in enumerate(sample):
        session.write_input(index, data)
    session.run(capture=place)
    return session.read(Space.CAPTURE, 0, place.length)
