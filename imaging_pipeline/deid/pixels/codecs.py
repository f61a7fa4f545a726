"""Writing one changed frame in the transfer syntax it came in.

Owns the choice of encoder. Lossless processes, and lossy ones whose syntax admits reversible streams (JPEG-LS
near-lossless with an error of 0, JPEG 2000 with the reversible transform: PS3.5 A.4.3, A.4.4), write the decoded
samples again, so that nothing outside the boxes changes. Lossy JPEG is not decoded: the blocks under the boxes are
replaced in the stream (`jpeg`). Anything else is refused.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.pixels.encoders.base import (
    JPEG2000LosslessEncoder,
    JPEGLSLosslessEncoder,
    JPEGLSNearLosslessEncoder,
    RLELosslessEncoder,
)
from pydicom.uid import (
    JPEG2000,
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from imaging_pipeline.deid.pixels import jpeg
from imaging_pipeline.deid.pixels.boxes import Box
from imaging_pipeline.errors import PoisonInput, Reason

_ENCODERS: Final = {
    RLELossless: (RLELosslessEncoder, "pydicom"),
    JPEGLSLossless: (JPEGLSLosslessEncoder, "pyjpegls"),
    JPEGLSNearLossless: (JPEGLSNearLosslessEncoder, "pyjpegls"),
    JPEG2000Lossless: (JPEG2000LosslessEncoder, "pylibjpeg"),
    JPEG2000: (JPEG2000LosslessEncoder, "pylibjpeg"),
}
"""One named plugin each: two plugins for the same syntax may give different bytes."""

_JPEG: Final = (JPEGBaseline8Bit, JPEGExtended12Bit)
_JPEG_LOSSLESS: Final = (JPEGLossless, JPEGLosslessSV1)


def encode(
    syntax: UID,
    stream: bytes,
    boxes: list[Box],
    cells: NDArray[Any],
    fill: NDArray[Any],
    described: dict[str, Any],
) -> bytes:
    """One frame as a code stream.

    Args:
        syntax: the transfer syntax.
        stream: the frame before the change.
        boxes: what was filled.
        cells: the frame after the change, unsigned, (rows, columns) or (rows, columns, samples).
        fill: the value of the fill, one per sample.
        described: the Image Pixel attributes as pydicom's encoders take them.

    Raises:
        PoisonInput: PIXEL_REVIEW_REQUIRED when the syntax cannot be written.
    """
    if syntax in _JPEG:
        return jpeg.blank(stream, boxes, [int(value) for value in fill])
    samples = np.ascontiguousarray(cells)
    if described["pixel_representation"]:
        samples = samples.view(f"=i{samples.dtype.itemsize}")
    if syntax in _JPEG_LOSSLESS:
        return _jpeg_lossless(samples, described, first_order=syntax == JPEGLosslessSV1)
    if syntax not in _ENCODERS:
        raise PoisonInput(
            Reason.PIXEL_REVIEW_REQUIRED, f"text was found, and nothing here writes {syntax.name} again without a loss"
        )
    encoder, plugin = _ENCODERS[syntax]
    options = dict(described)
    if syntax in (JPEG2000Lossless, JPEG2000):
        options["use_mct"] = jpeg.is_transformed_jpeg_2000(stream)
    if options.get("use_mct"):
        options["photometric_interpretation"] = "YBR_RCT"
    if syntax == JPEGLSNearLossless:
        options["jls_error"] = 0
    return encoder.encode(samples, encoding_plugin=plugin, **options)


def _jpeg_lossless(samples: NDArray[Any], described: dict[str, Any], *, first_order: bool) -> bytes:
    """JPEG Process 14 with predictor 1, by GDCM."""
    import gdcm  # noqa: PLC0415  # only objects of this syntax pay for it

    writer = gdcm.ImageWriter()  # owns the image: it must live as long
    image = writer.GetImage()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((described["columns"], described["rows"], 1))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ImplicitVRLittleEndian))
    image.SetPhotometricInterpretation(
        gdcm.PhotometricInterpretation(
            gdcm.PhotometricInterpretation.GetPIType(described["photometric_interpretation"])
        )
    )
    image.SetPixelFormat(
        gdcm.PixelFormat(
            described["samples_per_pixel"],
            described["bits_allocated"],
            described["bits_stored"],
            described["bits_stored"] - 1,
            described["pixel_representation"],
        )
    )
    value = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    value.SetByteStringValue(samples.tobytes())
    image.SetDataElement(value)
    change = gdcm.ImageChangeTransferSyntax()
    syntaxes = gdcm.TransferSyntax
    kind = syntaxes.JPEGLosslessProcess14_1 if first_order else syntaxes.JPEGLosslessProcess14
    change.SetTransferSyntax(gdcm.TransferSyntax(kind))
    change.SetInput(image)
    if not change.Change():
        raise PoisonInput(Reason.PIXEL_REVIEW_REQUIRED, "text was found, and the frame could not be written again")
    fragments = change.GetOutput().GetDataElement().GetSequenceOfFragments()
    return b"".join(
        fragments.GetFragment(number).GetByteValue().GetBuffer().encode("utf-8", "surrogateescape")
        for number in range(fragments.GetNumberOfFragments())
    )
