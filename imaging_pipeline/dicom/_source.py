"""The bytes of one object, of which only a prefix is loaded.

Owns how much of an object is fetched or inflated, and the limits on it. Contains no knowledge of elements.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

from imaging_pipeline.errors import PoisonInput, Reason

MAX_HEADER_BYTES = 256 * 1024 * 1024
"""No header is read further than this; whole-slide functional groups reach tens of MiB."""

INFLATION_RATIO_MAX = 200
"""Headers deflate 3 to 60 times; a deflated header beyond this ratio is a bomb once it is large."""

INFLATION_FREE_BYTES = 16 * 1024 * 1024
"""The ratio is not looked at below this size."""

UNKNOWN_SIZE = 1 << 62
"""Stands for the size of a stream whose end is not known yet."""

_STEP = 64 * 1024

More = Callable[[int], bytes]
"""Gives a longer prefix: at least as many bytes as asked for, or all there are."""


class Source:
    """A growing prefix of an object.

    Attributes:
        prefix: the bytes loaded so far.
        size: bytes of the whole object; lowered when the object proves shorter than announced.
        is_capped: loading was refused because of ``MAX_HEADER_BYTES``.
    """

    __slots__ = ("_more", "is_capped", "prefix", "size")

    def __init__(self, prefix: bytes, size: int | None = None, more: More | None = None) -> None:
        self.prefix = bytes(prefix)
        self.size = max(len(self.prefix), size or 0)
        self.is_capped = False
        self._more = more

    @property
    def is_complete(self) -> bool:
        """Every byte of the object is loaded."""
        return len(self.prefix) >= self.size

    def load(self, upto: int) -> bytes:
        """The prefix, grown to ``upto`` bytes where the object has them.

        Raises:
            PoisonInput: TOO_LARGE, when a deflated data set inflates beyond its limits.
        """
        if upto <= len(self.prefix) or self.is_complete or self._more is None:
            return self.prefix
        if upto > MAX_HEADER_BYTES:
            self.is_capped = True
            return self.prefix
        wanted = min(self.size, MAX_HEADER_BYTES, max(upto + _STEP, 2 * len(self.prefix)))
        self.prefix = bytes(self._more(wanted))
        if len(self.prefix) < min(upto, self.size):
            self.size = len(self.prefix)
        return self.prefix


def inflating(compressed: Source, start: int) -> Source:
    """The data set of Deflated Explicit VR Little Endian (PS3.5 A.5), inflated only as far as it is read.

    Args:
        compressed: the object.
        start: offset of the deflated bytes, just after the file meta information.

    Raises:
        PoisonInput: TOO_LARGE, see ``Source.load``.
    """
    more = _Inflation(compressed, start)
    return Source(more(_STEP), UNKNOWN_SIZE, more)


class _Inflation:
    """Inflates on demand; once the stream ends or breaks it stops growing."""

    def __init__(self, compressed: Source, start: int) -> None:
        self._compressed = compressed
        self._at = start
        self._inflator = zlib.decompressobj(-zlib.MAX_WBITS)
        self._pending = b""
        self._inflated = bytearray()
        self._consumed = 0

    def __call__(self, upto: int) -> bytes:
        upto = min(upto, MAX_HEADER_BYTES)
        while len(self._inflated) < upto and not self._inflator.eof:
            if not self._pending and not self._feed():
                break
            try:
                chunk = self._inflator.decompress(self._pending, upto - len(self._inflated))
            except zlib.error:
                break
            self._consumed += len(self._pending) - len(self._inflator.unconsumed_tail)
            self._pending = self._inflator.unconsumed_tail
            self._inflated += chunk
            self._check_ratio()
        return bytes(self._inflated)

    def _feed(self) -> bool:
        """Take the next compressed bytes; False when there are none."""
        prefix = self._compressed.load(self._at + 1)
        self._pending = prefix[self._at : self._at + _STEP]
        self._at += len(self._pending)
        return bool(self._pending)

    def _check_ratio(self) -> None:
        inflated = len(self._inflated)
        if inflated > INFLATION_FREE_BYTES and inflated > INFLATION_RATIO_MAX * self._consumed:
            message = f"the deflated header grows by more than {INFLATION_RATIO_MAX} to 1"
            raise PoisonInput(Reason.TOO_LARGE, message)
