"""The frame of a JPEG stream (ISO/IEC 10918-1): what it holds, and the stream without what is no picture.

Owns markers and segments alone; decodes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from imaging_pipeline.errors import PoisonInput, Reason

_SOI, _EOI, _SOS, _COM, _ADOBE = 0xD8, 0xD9, 0xDA, 0xFE, 0xEE
_BASELINE = 0xC0
_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_APPLICATION = range(0xE0, 0xF0)


@dataclass(frozen=True, slots=True)
class JpegFrame:
    """A JPEG stream.

    Attributes:
        is_baseline: of the baseline process with 8 bits, as transfer syntax JPEG Baseline wants it (PS3.5 A.4.1).
        factors: horizontal and vertical sampling of each component.
        transform: Adobe's colour transform (0: none, 1: YCbCr), None when it is not stated.
        data: the stream without comments and application segments, which hold names, places and thumbnails; Adobe's
            stays, since decoders need it.
    """

    is_baseline: bool
    factors: tuple[tuple[int, int], ...]
    transform: int | None
    data: bytes


def read_jpeg(data: bytes) -> JpegFrame:
    """Take a JPEG stream apart.

    Raises:
        PoisonInput: ``Reason.TRUNCATED`` when it ends early, ``Reason.MALFORMED`` when it is no JPEG stream.
    """
    kept = [b"\xff\xd8"]
    frame: tuple[bool, tuple[tuple[int, int], ...]] | None = None
    transform = None
    for marker, segment in _segments(data):
        if marker in _FRAMES and len(segment) >= 10:
            frame = marker == _BASELINE and segment[4] == 8, _factors(segment)
        if marker == _ADOBE and segment[4:9] == b"Adobe" and len(segment) >= 16:
            transform = segment[15]
        elif marker == _COM or marker in _APPLICATION:
            continue
        kept.append(segment)
    if frame is None:
        raise PoisonInput(Reason.MALFORMED, "a JPEG stream without a frame")
    return JpegFrame(*frame, transform, b"".join(kept))


def _factors(segment: bytes) -> tuple[tuple[int, int], ...]:
    parts = (segment[10 + 3 * index : 13 + 3 * index] for index in range(segment[9]))
    return tuple((part[1] >> 4, part[1] & 15) for part in parts if len(part) == 3)


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Markers with their segments, each with its marker; the scans and what follows, up to the end, are one."""
    if data[:2] != b"\xff\xd8":
        raise PoisonInput(Reason.MALFORMED, "no JPEG stream")
    position = 2
    while True:
        while data[position : position + 2] == b"\xff\xff":
            position += 1  # fill bytes
        if len(data) < position + 4 or data[position] != 0xFF:
            raise PoisonInput(Reason.TRUNCATED, "the JPEG stream ends in its header, or is damaged there")
        marker = data[position + 1]
        if marker == _SOS:
            end = data.find(b"\xff\xd9", position)  # phones put a second picture behind the first
            if end < 0:
                raise PoisonInput(Reason.TRUNCATED, "the JPEG stream has no end")
            yield marker, data[position : end + 2]
            return
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        segment = data[position : position + 2 + length]
        if length < 2 or len(segment) < 2 + length:
            raise PoisonInput(Reason.TRUNCATED, "the JPEG stream ends in a segment")
        yield marker, segment
        position += 2 + length
