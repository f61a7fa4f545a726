"""Does this installation decode what it says it does? One tiny frame of each compressed form is really decoded.

The frames, 8 x 8 pixels rising from left to right and from top to bottom, were written by other libraries than those
that decode them here, where there was another one: DCMTK (RLE, JPEG, JPEG-LS), OpenJPEG, OpenJPH (HTJ2K).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, SecondaryCaptureImageStorage

from imaging_pipeline.dicom.pixels import decode_frame
from imaging_pipeline.errors import PoisonInput

EDGE = 8
"""Rows and columns of a sample."""

LOSSY_SHARE = 0.05
"""Largest error of a lossy sample, as a share of its brightest value."""


@dataclass(frozen=True, slots=True)
class DecoderTrial:
    """What came of one form.

    Attributes:
        form: compression and bits, in words.
        transfer_syntax_uid: its transfer syntax.
        is_decoded: it was decoded, and the pixels are right.
    """

    form: str
    transfer_syntax_uid: str
    is_decoded: bool


def try_decoders() -> Iterator[DecoderTrial]:
    """Decode a sample of each compressed form."""
    text = (resources.files("imaging_pipeline.dicom") / "data" / "decoder_samples.json").read_text("utf-8")
    for sample in json.loads(text):
        yield DecoderTrial(sample["form"], sample["transfer_syntax_uid"], _is_decoded(sample))


def sample_pixels(bits_stored: int) -> npt.NDArray[np.uint16]:
    """The pixels of every sample: uint16 (8, 8)."""
    step = 4 if bits_stored == 8 else 65
    return (np.arange(EDGE * EDGE, dtype=np.uint16) * step).reshape(EDGE, EDGE)


def _is_decoded(sample: dict[str, Any]) -> bool:
    expected = sample_pixels(sample["bits_stored"]).astype(int)
    try:
        stored = decode_frame(_object(sample)).stored
    except PoisonInput:
        return False
    error = np.abs(stored.astype(int) - expected).max()
    return bool(error <= (LOSSY_SHARE * expected.max() if sample["is_lossy"] else 0))


def _object(sample: dict[str, Any]) -> bytes:
    """A DICOM object around the frame of a sample."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = SecondaryCaptureImageStorage, "2.25.1"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows = ds.Columns = EDGE
    ds.BitsStored = sample["bits_stored"]
    ds.BitsAllocated, ds.HighBit, ds.PixelRepresentation = (8 if ds.BitsStored == 8 else 16), ds.BitsStored - 1, 0
    ds.PixelData = encapsulate([base64.b64decode(sample["frame"])])
    ds["PixelData"].VR = "OB"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(sample["transfer_syntax_uid"])
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    buffer = BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()
