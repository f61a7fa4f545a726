"""From a displayed image to the bytes of a DICOM Part 10 file.

Owns the choice of stored values, the attributes that say how to display them, lossless compression and file meta
information. Knows nothing of patients, studies or how the image was made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from openjpeg.utils import encode_array
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import JPEGLSLosslessEncoder, RLELosslessEncoder
from pydicom.uid import UID, JPEG2000Lossless, JPEGLSLossless, RLELossless

from imaging_pipeline.dicom.part10 import to_part10
from imaging_pipeline.samples.sites import Display, Machine

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMPLEMENTATION_UID = UID("2.25.255914231043618239173316923840351267102")
IMPLEMENTATION_NAME = "CHEST_PHANTOM_1"

ENCODERS = {RLELossless: (RLELosslessEncoder, "pydicom"), JPEGLSLossless: (JPEGLSLosslessEncoder, "pyjpegls")}
"""One named plugin each, since two plugins for the same syntax may give different bytes."""

FLOOR, CEILING = 0.06, 0.82
"""Shares of the stored range the image occupies, so that only the window or LUT shows it with full contrast."""


def put_pixels(ds: Dataset, image: NDArray[np.float32], machine: Machine) -> None:
    """Set the Image Pixel, Modality LUT and VOI LUT attributes and Pixel Data (PS3.3 C.7.6.3, C.11.1, C.11.2).

    Args:
        ds: receives the attributes.
        image: (rows, columns) in [0, 1], bright is dense.
        machine: says bits, photometric interpretation, transfer syntax and display.
    """
    low, high = stored_range(machine)
    # In MONOCHROME1 the lowest value is shown white (PS3.3 C.7.6.3.1.2).
    shown = 1 - image if machine.inverted else image
    stored = np.rint(low + shown * (high - low)).astype("<u2")
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME1" if machine.inverted else "MONOCHROME2"
    ds.Rows, ds.Columns = stored.shape
    ds.BitsAllocated = 16
    ds.BitsStored = machine.bits_stored
    ds.HighBit = machine.bits_stored - 1
    ds.PixelRepresentation = 0
    _put_display(ds, machine)
    if machine.transfer_syntax.is_encapsulated:
        ds.add_new("PixelData", "OB", encapsulate([_compressed(stored, machine)]))
        ds["PixelData"].is_undefined_length = True
    else:
        ds.add_new("PixelData", "OW", stored.tobytes())


def stored_range(machine: Machine) -> tuple[int, int]:
    """Lowest and highest stored value a machine writes; all of its range when it says nothing about display."""
    full = 2**machine.bits_stored - 1
    if machine.display is Display.NONE:
        return 0, full
    return round(FLOOR * full), round(CEILING * full)


def part10(ds: Dataset, transfer_syntax: UID) -> bytes:
    """Bytes of a DICOM file, as these machines write it."""
    return to_part10(ds, transfer_syntax, IMPLEMENTATION_UID, IMPLEMENTATION_NAME)


def _put_display(ds: Dataset, machine: Machine) -> None:
    low, high = stored_range(machine)
    slope, intercept = 1, 0
    if machine.display is Display.RESCALE:
        slope, intercept = 4, -1024
    if machine.display is Display.RESCALE or machine.modality == "DX":
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = str(intercept), str(slope), "US"
    if machine.display is Display.VOI_LUT:
        ds.VOILUTSequence = [_voi_lut(low, high, 16 if machine.modality == "CR" else machine.bits_stored)]
    elif machine.display is not Display.NONE:
        centre = slope * (low + high) / 2 + intercept
        width = slope * (high - low)
        several = machine.display is Display.TWO_WINDOWS
        ds.WindowCenter = [f"{centre:.1f}", f"{centre * 0.9:.1f}"] if several else f"{centre:.1f}"
        ds.WindowWidth = [f"{width:.1f}", f"{width * 0.6:.1f}"] if several else f"{width:.1f}"
        ds.WindowCenterWidthExplanation = ["NORMAL", "HARDER"] if several else "NORMAL"


def _voi_lut(low: int, high: int, bits: int) -> Dataset:
    """Build a gentle sigmoid over the used range.

    An entry has 8 or 16 bits (PS3.3 C.11.2.1.1), in DX 10 to 16 (C.8.11.3.1.5).
    """
    position = np.linspace(-1, 1, high - low + 1)
    curve = np.tanh(1.2 * position) / np.tanh(1.2)
    table = np.rint((curve + 1) / 2 * (2**bits - 1)).astype("<u2")
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(table), low, bits])
    item.LUTExplanation = "SIGMOID"
    item.add_new("LUTData", "OW", table.tobytes())
    return item


def _compressed(stored: NDArray[np.uint16], machine: Machine) -> bytes:
    """One losslessly compressed frame."""
    if machine.transfer_syntax == JPEG2000Lossless:
        # pydicom writes JPEG 2000 only through pylibjpeg itself; its codec suffices here.
        return bytes(encode_array(stored, bits_stored=machine.bits_stored, photometric_interpretation=2))
    rows, columns = stored.shape
    encoder, plugin = ENCODERS[machine.transfer_syntax]
    return encoder.encode(
        stored,
        encoding_plugin=plugin,
        rows=rows,
        columns=columns,
        samples_per_pixel=1,
        number_of_frames=1,
        bits_allocated=16,
        bits_stored=machine.bits_stored,
        pixel_representation=0,
        photometric_interpretation="MONOCHROME2",
    )
