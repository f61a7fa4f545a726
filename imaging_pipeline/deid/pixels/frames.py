"""Frames of one object: its pixel data as arrays, and changed arrays as pixel data of the same kind.

Owns decoding for reading, cutting into frames, and writing back in the same transfer syntax, so that frames that were
not changed keep their bytes. Contains no search for text and no policy. Whatever cannot be read or written holds the
object.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate, generate_fragmented_frames, parse_basic_offsets
from pydicom.pixels.utils import as_pixel_options, pack_bits
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRBigEndian, JPEGLSLossless, JPEGLSNearLossless, RLELossless

from imaging_pipeline.deid.pixels import codecs
from imaging_pipeline.deid.pixels.boxes import Box
from imaging_pipeline.deid.pixels.header import texts
from imaging_pipeline.deid.reading import element
from imaging_pipeline.dicom.decoders import decoder_for, is_jpeg_12_bit
from imaging_pipeline.errors import PoisonInput, Reason

Samples = NDArray[Any]
"""Stored samples of one frame, (rows, columns) or (rows, columns, samples per pixel), unsigned cells or floats."""

PIXEL_KEYWORDS: Final = {"FloatPixelData": 32, "DoubleFloatPixelData": 64, "PixelData": 0}
"""Pixel data attributes with the bits of a sample where Bits Allocated does not say it (PS3.3 C.7.6.24)."""

MAX_FRAME_SAMPLES: Final = 2**28
"""Largest frame read, rows x columns x samples: above any radiograph, below what would exhaust a worker."""

_CELLS: Final = (1, 8, 16, 32, 64)
_SUBSAMPLED: Final = ("YBR_FULL_422", "YBR_PARTIAL_422")


def hold(why: str) -> PoisonInput:
    """The refusal of an object whose pixels a person has to look at."""
    return PoisonInput(Reason.PIXEL_REVIEW_REQUIRED, why)


class Frames:
    """The frames of an object's pixel data.

    Attributes:
        count: number of frames.
        rows, columns, samples: size of a frame.
        bits_stored, high_bit, is_signed: how a value lies in its cell (PS3.5 8.1.1).
        photometric: Photometric Interpretation of the arrays given out.
        is_float: float or double float pixel data.
        changed: indices of frames that were replaced.
    """

    def __init__(self, ds: FileDataset, keyword: str, syntax: str) -> None:
        """Cut the pixel data of ``ds``.

        Raises:
            PoisonInput: PIXEL_REVIEW_REQUIRED when the header and the pixel data do not fit together.
        """
        self._ds, self._keyword, self._syntax = ds, keyword, UID(syntax)
        self.rows, self.columns = self._size("Rows"), self._size("Columns")
        self.samples = self._size("SamplesPerPixel", 1)
        self.count = self._size("NumberOfFrames", 1)
        self._bits = PIXEL_KEYWORDS[keyword] or self._size("BitsAllocated")
        self.is_float = keyword != "PixelData"
        self.bits_stored = self._size("BitsStored", self._bits) if not self.is_float else self._bits
        self.high_bit = self._size("HighBit", self.bits_stored - 1) if not self.is_float else self._bits - 1
        self.is_signed = _first(ds, "PixelRepresentation") == "1"
        self.photometric = _first(ds, "PhotometricInterpretation") or "MONOCHROME2"
        self._is_planar = self.samples > 1 and _first(ds, "PlanarConfiguration") == "1"
        fits = 1 <= self.bits_stored <= self.high_bit + 1 <= self._bits and self._bits in _CELLS
        if not fits or self.rows * self.columns * self.samples > MAX_FRAME_SAMPLES or self.samples > 4:
            raise hold("the size of the pixels is not one that can be read")
        decoded = element(ds, Tag(keyword))
        if decoded is None or not isinstance(decoded.value, bytes):
            raise hold("the pixel data cannot be read")
        self._content = decoded.value
        self._vr = decoded.VR
        self._new: dict[int, bytes] = {}
        self._arrays: dict[int, Samples] = {}
        if self._syntax.is_encapsulated:
            self._fragments = self._cut()
        elif len(self._content) * 8 < self._frame_bits * self.count:
            raise hold("the pixel data is shorter than the image")

    @property
    def changed(self) -> tuple[int, ...]:
        """Indices of the frames that were replaced."""
        return tuple(sorted(self._arrays))

    @property
    def cell_bits(self) -> int:
        """Bits of a cell of the arrays given out."""
        return 8 if self._bits == 1 else self._bits

    def stored(self, index: int) -> bytes:
        """The bytes a frame is stored in; equal bytes are equal frames."""
        if self._syntax.is_encapsulated:
            return self._new.get(index) or b"".join(self._fragments[index])
        first, last = (index * self._frame_bits) // 8, ((index + 1) * self._frame_bits + 7) // 8
        return self._content[first:last]

    def read(self, index: int) -> Samples:
        """The cells of a frame, as they are written now: a changed frame of a compressed object is decoded again.

        Raises:
            PoisonInput: PIXEL_REVIEW_REQUIRED when the frame cannot be decoded.
        """
        if not self._syntax.is_encapsulated:
            return self._arrays[index].copy() if index in self._arrays else self._native(index)
        try:
            return self._decoded(self.stored(index))
        except (PoisonInput, MemoryError):
            raise
        except Exception:  # noqa: BLE001  # codecs raise anything on hostile bytes; their text may quote values
            refusal = hold("the pixels cannot be decoded, so nobody can say what they show")
        raise refusal

    def blank(self, index: int, boxes: Iterable[Box], cells: Samples, fill: Samples) -> None:
        """Put ``cells`` (a changed copy of the frame) in the place of a frame.

        Args:
            index: the frame.
            boxes: where ``cells`` differs; a lossy stream is changed there, in whole blocks, and nowhere else.
            cells: the frame with the boxes filled.
            fill: the value of the fill, one per sample.

        Raises:
            PoisonInput: PIXEL_REVIEW_REQUIRED when the transfer syntax cannot be written.
        """
        if self._syntax.is_encapsulated:
            try:
                self._new[index] = self._encoded(self.stored(index), list(boxes), cells, fill)
            except (PoisonInput, MemoryError):
                raise
            except Exception:  # noqa: BLE001  # as in read
                raise hold("text was found, and pixels of this transfer syntax cannot be written again") from None
            cells = cells[:0]
        self._arrays[index] = cells

    def write(self) -> None:
        """Put changed frames into the data set; without one it stays as it is."""
        if not self._arrays:
            return
        if self._syntax.is_encapsulated:
            self._ds[self._keyword].value = self._encapsulated()
            for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
                if keyword in self._ds:
                    del self._ds[keyword]
            if self.photometric == "RGB" and _first(self._ds, "PhotometricInterpretation") == "YBR_ICT":
                self._ds.PhotometricInterpretation = "YBR_RCT"
            return
        content = bytearray(self._content)
        if self._bits == 1:
            content[:] = self._packed(len(content))
        else:
            size = self._frame_bits // 8
            for index, cells in self._arrays.items():
                content[index * size : (index + 1) * size] = self._laid_out(cells)
        self._ds[self._keyword].value = bytes(content)

    @property
    def _frame_bits(self) -> int:
        samples = 2 if self._is_subsampled else self.samples
        return self.rows * self.columns * samples * self._bits

    @property
    def _is_subsampled(self) -> bool:
        return self.photometric in _SUBSAMPLED and not self._syntax.is_encapsulated

    @property
    def _dtype(self) -> np.dtype[Any]:
        kind = "f" if self.is_float else "u"
        order = ">" if self._syntax == ExplicitVRBigEndian else "<"
        return np.dtype(f"{order}{kind}{self._bits // 8}")

    def _size(self, keyword: str, default: int = 0) -> int:
        text = _first(self._ds, keyword)
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else default
        if number <= 0 and keyword != "HighBit":
            if keyword == "NumberOfFrames":
                return 1
            raise hold("the size of the pixels is not one that can be read")
        return number

    def _cut(self) -> list[tuple[bytes, ...]]:
        """The fragments of every frame (PS3.5 A.4)."""
        try:
            cut = list(generate_fragmented_frames(self._content, number_of_frames=self.count))
        except Exception:  # noqa: BLE001  # pydicom raises anything on a hostile item structure
            raise hold("the compressed pixel data cannot be divided into frames") from None
        if len(cut) != self.count:
            raise hold("the compressed pixel data has not as many frames as the header says")
        return cut

    def _native(self, index: int) -> Samples:
        if self._bits == 1:
            bits = np.unpackbits(np.frombuffer(self._content, np.uint8), bitorder="little")
            size = self.rows * self.columns * self.samples
            return self._shaped(bits[index * size : (index + 1) * size])
        size = self._frame_bits // 8
        content = self._content[index * size : (index + 1) * size]
        if self._is_swapped:
            content = np.frombuffer(content, ">u2").astype("<u2").tobytes()
        flat = np.frombuffer(content, self._dtype)
        if self._is_subsampled:
            return _spread(flat, self.rows, self.columns)
        return self._shaped(flat).astype(self._dtype.newbyteorder("="))

    def _shaped(self, flat: Samples) -> Samples:
        if self.samples == 1:
            return flat.reshape(self.rows, self.columns)
        if self._is_planar:
            return flat.reshape(self.samples, self.rows, self.columns).transpose(1, 2, 0)
        return flat.reshape(self.rows, self.columns, self.samples)

    def _laid_out(self, cells: Samples) -> bytes:
        """The native bytes of a frame; with 4:2:2 chroma every second column's is kept, as it was stored."""
        if self._is_subsampled:
            pairs = cells.reshape(self.rows, self.columns // 2, 2, 3)
            packed = np.stack([pairs[:, :, 0, 0], pairs[:, :, 1, 0], pairs[:, :, 0, 1], pairs[:, :, 0, 2]], axis=-1)
            return packed.astype(self._dtype).tobytes()
        ordered = cells.transpose(2, 0, 1) if self._is_planar else cells
        content = np.ascontiguousarray(ordered).astype(self._dtype).tobytes()
        return np.frombuffer(content, "<u2").astype(">u2").tobytes() if self._is_swapped else content

    @property
    def _is_swapped(self) -> bool:
        """Bytes of 8-bit samples under OW in big endian lie in swapped pairs (PS3.5 8.1.2)."""
        return self._bits == 8 and self._vr == "OW" and self._syntax == ExplicitVRBigEndian

    def _packed(self, length: int) -> bytes:
        frames = [self._arrays.get(index) for index in range(self.count)]
        cells = [self._native(index) if found is None else found for index, found in enumerate(frames)]
        packed = pack_bits(np.concatenate([frame.ravel() for frame in cells]), pad=False)
        return packed + bytes(length - len(packed))

    def _options(self) -> dict[str, Any]:
        options = as_pixel_options(self._ds)
        if is_run_length(self._syntax) or self._syntax in (JPEGLSLossless, JPEGLSNearLossless):
            options["bits_stored"] = self._bits  # else pydicom drops what lies in unused bits, and hides it
        return options | {"number_of_frames": 1, "pixel_vr": "OB", "pixel_keyword": "PixelData"}

    def _decoded(self, stream: bytes) -> Samples:
        decoder = decoder_for(self._syntax, is_12_bit=is_jpeg_12_bit(self._syntax, self.bits_stored))
        if decoder is None:
            raise hold(f"no decoder of {self._syntax.name} is installed")
        found, meta = decoder.as_array(encapsulate([stream], has_bot=False), raw=True, **self._options())
        self.photometric = str(meta["photometric_interpretation"])
        kind = f"=u{found.dtype.itemsize}"
        return found.view(kind) if found.dtype.kind == "i" else found.astype(kind)

    def _encoded(self, stream: bytes, boxes: list[Box], cells: Samples, fill: Samples) -> bytes:
        described = {
            "rows": self.rows, "columns": self.columns, "samples_per_pixel": self.samples, "number_of_frames": 1,
            "bits_allocated": 8 * cells.dtype.itemsize, "bits_stored": self.bits_stored,
            "pixel_representation": int(self.is_signed), "planar_configuration": 0,
            "photometric_interpretation": self.photometric,
        }  # fmt: skip
        return codecs.encode(self._syntax, stream, boxes, cells, fill, described)

    def _encapsulated(self) -> bytes:
        """Items of all frames; what was not changed keeps its fragments, and an offset table stays one."""
        cut = [(self._new[index],) if index in self._new else self._fragments[index] for index in range(self.count)]
        offsets, items = [], bytearray()
        for fragments in cut:
            offsets.append(len(items))
            for fragment in fragments:
                padded = fragment + b"\0" * (len(fragment) % 2)
                items += b"\xfe\xff\x00\xe0" + len(padded).to_bytes(4, "little") + padded
        has_table = bool(parse_basic_offsets(self._content)) and len(items) < 2**32
        table = b"".join(offset.to_bytes(4, "little") for offset in offsets) if has_table else b""
        start = b"\xfe\xff\x00\xe0" + len(table).to_bytes(4, "little") + table
        return bytes(start + items)


def is_run_length(syntax: str) -> bool:
    """Whether frames are run-length coded, with cells as wide as Bits Allocated."""
    return UID(syntax) == RLELossless


def _spread(flat: Samples, rows: int, columns: int) -> Samples:
    """Y1 Y2 Cb Cr as (rows, columns, 3), the chroma doubled (PS3.3 C.7.6.3.1.2)."""
    packed = flat.reshape(rows, columns // 2, 4)
    luma = packed[:, :, :2].reshape(rows, columns)
    chroma = np.repeat(packed[:, :, 2:], 2, axis=1)
    return np.concatenate([luma[..., None], chroma], axis=-1)


def _first(ds: FileDataset, keyword: str) -> str:
    return next(iter(texts(ds, keyword)), "")
