"""One frame of an object: as it is stored, in another transfer syntax, or opened to be shown.

Only the header and the frame itself are read. Must not contain places of frames in their objects, nor answers.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from imaging_pipeline.dicom.frame import Frame
from imaging_pipeline.dicom.pixels import ImageObject, open_image, open_lone_frame
from imaging_pipeline.dicom.transcoding import sample_bytes
from imaging_pipeline.errors import PoisonInput, Reason
from imaging_pipeline.objects.ranges import Ranges
from imaging_pipeline.objects.reading import MAX_OBJECT_BYTES
from imaging_pipeline.web.errors import WebError
from imaging_pipeline.web.index.model import Instance
from imaging_pipeline.web.wado.media import DEFLATED, EXPLICIT_BIG, EXPLICIT_LITTLE, NATIVE
from imaging_pipeline.web.wado.places import FramePlaces, lone_frame_value, native_bits, unwrapped

MAX_FRAMES = 10_000
"""Most frames of one request."""

DECODING = threading.BoundedSemaphore(4)
"""Held while an object or frame is decoded: the largest takes about 1 GB, and threads are many."""

_REWRITTEN = (DEFLATED, EXPLICIT_BIG)
"""Native transfer syntaxes whose frames are no little-endian samples as they lie in the file."""


@dataclass(frozen=True, slots=True)
class FrameReader:
    """The frames of one object whose bytes are open.

    Attributes:
        instance: the object.
        ranges: its bytes.
        places: where its frames lie.
    """

    instance: Instance
    ranges: Ranges
    places: FramePlaces

    def stored(self, index: int) -> bytes:
        """A frame as it is stored: its code stream, or its samples (little endian).

        Raises:
            PoisonInput: PIXEL_UNDECODABLE or PIXEL_UNSUPPORTED, and what reading raises.
        """
        if self.instance.transfer_syntax_uid in _REWRITTEN:
            return self.in_syntax(index, EXPLICIT_LITTLE)
        return self._as_it_lies(index)

    def in_syntax(self, index: int, syntax: str) -> bytes:
        """A frame in another transfer syntax, see `sample_bytes`.

        Raises:
            PoisonInput: also TRANSFER_SYNTAX_UNSUPPORTED.
        """
        with DECODING:
            image, place = self._opened(index)
            return sample_bytes(image, place, syntax)

    def shown(self, index: int) -> Frame:
        """A frame, decoded, with what is needed to show it.

        Raises:
            PoisonInput: as :meth:`in_syntax`.
        """
        with DECODING:
            image, place = self._opened(index)
            return image.frame(index) if place == index else image.shown_as(index)

    def _opened(self, index: int) -> tuple[ImageObject, int]:
        """The object, of which maybe this frame only was read, and the frame's place in what was read."""
        offset = self.instance.pixel_data_offset
        if self.instance.transfer_syntax_uid == DEFLATED:
            if self.ranges.size > MAX_OBJECT_BYTES:
                raise PoisonInput(Reason.TOO_LARGE, f"larger than {MAX_OBJECT_BYTES:,} bytes, and deflated")
            return open_image(self.ranges.read_at(0, self.ranges.size)), index
        frame = self._as_it_lies(index)
        header = self.ranges.read_at(0, offset or 0)
        return open_lone_frame(lone_frame_value(header, frame, self.instance.transfer_syntax_uid)), 0

    def _as_it_lies(self, index: int) -> bytes:
        start, length = self.places.span(self.instance, self.ranges, index)
        found = self.ranges.read_at(start, length)
        if self.instance.transfer_syntax_uid not in NATIVE:
            return unwrapped(found)
        if len(found) < length:
            raise PoisonInput(Reason.PIXEL_UNDECODABLE, "its pixel data end before the frame does")
        bits = native_bits(self.instance)
        return found if bits % 8 == 0 else _shifted(found, bits * index % 8, bits)


def _shifted(found: bytes, before: int, bits: int) -> bytes:
    """``bits`` bits behind the first ``before`` ones, from the start of a byte; the lowest bit comes first."""
    value = int.from_bytes(found, "little") >> before & ((1 << bits) - 1)
    return value.to_bytes((bits + 7) // 8, "little")


def frame_indices(text: str, instance: Instance) -> list[int]:
    """Indices, from 0, of a list of frame numbers as it stands in a path.

    Raises:
        WebError: 400 when it is no list, 404 when the object has no such frame.
    """
    try:
        numbers: Sequence[int] = [int(part) for part in text.split(",")]
    except ValueError:
        raise WebError(400, "expected frame numbers, from 1, with commas between them") from None
    if not numbers or min(numbers) < 1 or len(numbers) > MAX_FRAMES:
        raise WebError(400, f"expected frame numbers from 1, at most {MAX_FRAMES} of them")
    if max(numbers) > frame_count(instance):
        raise WebError(404, "the object has no such frame")
    return [number - 1 for number in numbers]


def frame_count(instance: Instance) -> int:
    """Frames of an object.

    Raises:
        WebError: 404 when it has no pixel data.
    """
    has_pixels = instance.pixel_data_offset is not None or instance.transfer_syntax_uid == DEFLATED
    if not has_pixels or instance.number_of_frames is None:
        raise WebError(404, "the object has no pixel data")
    return instance.number_of_frames
