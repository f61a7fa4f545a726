"""Small DICOM images made in memory, for tests of pixels and tensors."""

from __future__ import annotations

import sys
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydicom import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from imaging_pipeline.dicom.pixels import decode_frame, render
from imaging_pipeline.errors import PoisonInput

PIXEL_KEYWORDS = {"f4": "FloatPixelData", "f8": "DoubleFloatPixelData"}


def image(
    stored: npt.NDArray[Any],
    *,
    photometric: str = "MONOCHROME2",
    bits_stored: int | None = None,
    high_bit: int | None = None,
    transfer_syntax: UID = ExplicitVRLittleEndian,
    **elements: Any,
) -> bytes:
    """One object; ``stored`` is (H, W), (N, H, W) or, for three-sample photometrics, (H, W, 3)."""
    color = photometric in ("RGB", "YBR_FULL")
    bits = 8 * stored.itemsize
    ds = Dataset()
    ds.SOPClassUID = DigitalXRayImageStorageForPresentation
    ds.SOPInstanceUID = "2.25.1"
    ds.Modality = "DX"
    ds.SamplesPerPixel = 3 if color else 1
    if color:
        ds.PlanarConfiguration = 0
    ds.PhotometricInterpretation = photometric
    ds.Rows, ds.Columns = stored.shape[:2] if color else stored.shape[-2:]
    if stored.ndim == 3 and not color:
        ds.NumberOfFrames = len(stored)
    ds.BitsAllocated = bits
    if stored.dtype.kind != "f":
        ds.BitsStored = bits_stored or bits
        ds.HighBit = ds.BitsStored - 1 if high_bit is None else high_bit
        ds.PixelRepresentation = int(stored.dtype.kind == "i")
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return _encoded(ds, stored, transfer_syntax)


def row(*values: float, dtype: str = "u2") -> np.ndarray[Any, Any]:
    return np.array([values]).astype(dtype)


def shown(data: bytes, **options: int) -> list[float]:
    return [round(float(value), 4) for value in render(decode_frame(data), **options).ravel()]


def refused(data: bytes, frame: int = 0) -> PoisonInput:
    with pytest.raises(PoisonInput) as caught:
        decode_frame(data, frame)
    return caught.value


def lookup_table(first: int, entries: list[int], bits: int) -> Sequence:
    """A LUT sequence of one item with 16-bit entries."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US" if first >= 0 else "SS", [len(entries), first, bits])
    item.add_new("LUTData", "US", entries)
    return Sequence([item])


def sequence(**elements: Any) -> Sequence:
    """A sequence of one item."""
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return Sequence([item])


def _encoded(ds: Dataset, stored: npt.NDArray[Any], transfer_syntax: UID) -> bytes:
    is_native_order = transfer_syntax.is_little_endian == (sys.byteorder == "little")
    raw = (stored if is_native_order else stored.byteswap()).tobytes()
    keyword = PIXEL_KEYWORDS.get(stored.dtype.str[1:], "PixelData")
    if transfer_syntax.is_encapsulated:
        raw = encapsulate([raw])
    setattr(ds, keyword, raw + b"\0" * (len(raw) % 2))
    if keyword == "PixelData":
        ds["PixelData"].VR = "OB" if transfer_syntax.is_encapsulated or stored.itemsize == 1 else "OW"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = transfer_syntax
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    buffer = BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()
