"""Images with and without burned-in text, native and compressed, for the tests of pixels."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image, ImageDraw, ImageFont
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import JPEG2000LosslessEncoder, JPEGLSLosslessEncoder, RLELosslessEncoder
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from imaging_pipeline.deid.pixels import PixelPolicy, PixelReport, clean_pixels
from imaging_pipeline.deid.screen import Index

FILES = Path(pydicom.__file__).parent / "data" / "test_files"
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
CT = "1.2.840.10008.5.1.4.1.1.2"
ULTRASOUND = "1.2.840.10008.5.1.4.1.1.6.1"
NAME = "SMITH JOHN 12345"


@dataclass(frozen=True)
class Profile:
    sop_classes: frozenset[str] = frozenset({CAPTURE, CT, ULTRASOUND})
    pixels: PixelPolicy = field(default_factory=lambda: PixelPolicy(text="blank"))


BLANKING = Profile()
HOLDING = Profile(pixels=PixelPolicy())


def ink(
    text: str, rows: int, columns: int, at: tuple[int, int] = (20, 20), size: int = 18, turns: int = 0
) -> np.ndarray:
    """(rows, columns) in [0, 1], 1 where ``text`` is written."""
    page = Image.new("L", (columns, rows) if turns % 2 == 0 else (rows, columns))
    ImageDraw.Draw(page).text(at, text, fill=255, font=ImageFont.load_default(size))
    return np.rot90(np.asarray(page) / 255.0, turns)


def anatomy(rows: int = 128, columns: int = 256) -> np.ndarray:
    """A smooth and noisy ground in [0, 0.5]."""
    slope = np.add.outer(np.arange(rows), np.arange(columns)) / (2.5 * (rows + columns))
    return np.clip(slope + np.random.RandomState(7).normal(0, 0.01, (rows, columns)), 0, 0.5)


def image(values: np.ndarray, bits: int = 8, *, is_signed: bool = False) -> np.ndarray:
    top = 2**bits - 1
    stored = np.clip(values * top, 0, top)
    if is_signed:
        return (stored - 2 ** (bits - 1)).astype(np.int16)
    return stored.astype(np.uint8 if bits <= 8 else np.uint16)


def described(pixels: np.ndarray, bits: int, photometric: str, syntax: str, sop_class: str) -> FileDataset:
    """An object without pixel data; ``pixels`` is (frames, rows, columns) or (frames, rows, columns, 3)."""
    ds = FileDataset("", {}, file_meta=FileMetaDataset(), preamble=bytes(128))
    ds.SOPClassUID = sop_class
    ds.NumberOfFrames, ds.Rows, ds.Columns = pixels.shape[:3]
    ds.SamplesPerPixel = pixels.shape[3] if pixels.ndim == 4 else 1
    if ds.SamplesPerPixel > 1:
        ds.PlanarConfiguration = 0
    ds.PhotometricInterpretation = photometric
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8 * pixels.itemsize, bits, bits - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    return ds


def native(
    pixels: np.ndarray, bits: int = 8, photometric: str = "MONOCHROME2", sop_class: str = CAPTURE
) -> FileDataset:
    pixels = pixels if pixels.ndim >= 3 else pixels[None]
    ds = described(pixels, bits, photometric, ExplicitVRLittleEndian, sop_class)
    ds.add(DataElement(0x7FE00010, "OW", pixels.tobytes()))
    return ds


def compressed(pixels: np.ndarray, syntax: UID, bits: int = 8, photometric: str = "MONOCHROME2") -> FileDataset:
    ds = described(pixels, bits, photometric, syntax, CAPTURE)
    ds.add(DataElement(0x7FE00010, "OB", encapsulate([stream(frame, ds, syntax) for frame in pixels])))
    return ds


def stream(frame: np.ndarray, ds: Dataset, syntax: UID) -> bytes:
    if syntax == JPEGBaseline8Bit:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG", quality=90, optimize=True)
        return buffer.getvalue()
    encoders = {RLELossless: RLELosslessEncoder, JPEGLSLossless: JPEGLSLosslessEncoder}
    encoders |= {JPEGLSNearLossless: JPEGLSLosslessEncoder}
    plugins = {RLELossless: "pydicom", JPEGLSLossless: "pyjpegls", JPEGLSNearLossless: "pyjpegls"}
    return encoders.get(syntax, JPEG2000LosslessEncoder).encode(
        frame, encoding_plugin=plugins.get(syntax, "pylibjpeg"), rows=ds.Rows, columns=ds.Columns,
        samples_per_pixel=ds.SamplesPerPixel, number_of_frames=1, bits_allocated=ds.BitsAllocated,
        bits_stored=ds.BitsStored, pixel_representation=ds.PixelRepresentation, planar_configuration=0,
        photometric_interpretation=ds.PhotometricInterpretation, use_mct=ds.PhotometricInterpretation == "YBR_RCT",
    )  # fmt: skip


def clean(ds: FileDataset, profile: Profile = BLANKING, index: Index | None = None, **more: object) -> PixelReport:
    return clean_pixels(ds, profile, str(ds.file_meta.TransferSyntaxUID), index or Index([]), **more)


def array(ds: FileDataset) -> np.ndarray:
    """The decoded pixels of ``ds`` as it is now."""
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=False)
    buffer.seek(0)
    return dcmread(buffer, force=True).pixel_array


def mask_of(report: PixelReport, rows: int, columns: int) -> np.ndarray:
    mask = np.zeros((rows, columns), bool)
    for box in report.regions:
        mask[box.rows, box.columns] = True
    return mask
