"""Real and made images against DCMTK's renderer."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file, get_testdata_files
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    JPEGLSTransferSyntaxes,
)

from imaging_pipeline.dicom.frame import Frame, LookupTable
from imaging_pipeline.dicom.pixels import ImageObject, decode_frame, open_image, render, render_color
from imaging_pipeline.errors import PoisonInput
from imaging_pipeline_tests.dicom.images import image, lookup_table

REAL_FILES = sorted(Path(name) for name in get_testdata_files() if Path(name).is_file())

DCM2PNM = shutil.which("dcmj2pnm") or shutil.which("dcm2pnm")

needs_dcmtk = pytest.mark.skipif(DCM2PNM is None, reason="DCMTK's dcmj2pnm is not installed")

GRAY_LEVELS = 1.1
"""DCMTK cuts to 8 bits where we round later, and computes some windows in integers."""

OTHERWISE = {
    # What DCMTK shows otherwise, and why. Each cause has its own test against numbers worked out by hand.
    "CT1_JPLL": "padding is left out of the range that is spread from black to white",
    "CT1_RLE": "padding is left out of the range that is spread from black to white",
    "MR3_JPLL": "padding is black",
    "MR3_JPLY": "padding is black",
    "MR3_JLSN": "padding is black",
    "rtdose_expb.dcm": "DCMTK swaps the halves of big endian 32-bit values",
    "rtdose_expb_1frame.dcm": "DCMTK swaps the halves of big endian 32-bit values",
    "GH195.dcm": "photometric interpretation says RGB, the JPEG's JFIF marker YBR",
    "GH610.dcm": "DCMTK cuts modality values to integers; the slope is 6e-8",
    "002_non_isotropic/001.dcm": "DCMTK cuts modality values to integers; the slope is 1e-3",
    "002_non_isotropic/002.dcm": "DCMTK cuts modality values to integers; the slope is 1e-3",
    "002_non_isotropic/003.dcm": "DCMTK cuts modality values to integers; the slope is 1e-3",
}

COLLECTIONS = Path(__file__).parents[3] / "shared" / "data" / "real_dicom"
OTHERS = sorted(path for path in COLLECTIONS.rglob("*") if path.is_file() and path.suffix in ("", ".dcm"))

SLICES_OF_A_FOLDER = 4
"""Of folders that hold whole series, the first slices are enough; what is told in `OTHERWISE` is never left out."""


def one_of_each() -> list[Path]:
    """Files with pixels, each content once, few of a series."""
    chosen: dict[bytes, Path] = {}
    taken: Counter[Path] = Counter()
    for path in (*REAL_FILES, *OTHERS):
        data = path.read_bytes()
        is_told = any(path.match(name) for name in OTHERWISE)
        if b"\xe0\x7f" not in data and b"\x7f\xe0" not in data:
            continue
        if is_told or path in REAL_FILES or taken[path.parent] < SLICES_OF_A_FOLDER:
            taken[path.parent] += 1
            chosen.setdefault(hashlib.sha256(data).digest(), path)
    return sorted(chosen.values())


def dcmtk_picture(path: Path, folder: Path, *options: str) -> np.ndarray[Any, Any] | None:
    """Levels, 0 to 255, without overlays, (H, W) or (H, W, 3); None where DCMTK refuses the file."""
    target = folder / "picture.ppm"
    done = subprocess.run(
        [str(DCM2PNM), "-q", "-O", *options, str(path), str(target)], capture_output=True, check=False
    )
    return None if done.returncode else np.asarray(Image.open(target)).astype(float)


def readable_by_dcmtk(path: Path, image: ImageObject, folder: Path) -> Path:
    """DCMTK's renderer knows no JPEG-LS; its other tool makes it native."""
    if image.decoder.UID not in JPEGLSTransferSyntaxes:
        return path
    subprocess.run(["dcmdjpls", "-q", str(path), str(folder / "native.dcm")], capture_output=True, check=False)
    return folder / "native.dcm"


def view_option(frame: Frame) -> tuple[str, ...]:
    if frame.is_color:
        return ()
    if not frame.views:
        return ("+Wm",)
    return ("+Wl" if isinstance(frame.views[0], LookupTable) else "+Wi", "1")


@needs_dcmtk
@pytest.mark.parametrize("path", one_of_each(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_real_files_look_as_in_dcmtk(path: Path, tmp_path: Path) -> None:
    try:
        image_object = open_image(path.read_bytes())
        frame = image_object.frame(0)
    except PoisonInput:
        pytest.skip("we refuse it")
    picture = dcmtk_picture(readable_by_dcmtk(path, image_object, tmp_path), tmp_path, *view_option(frame))
    if picture is None:
        pytest.skip("DCMTK refuses it")
    ours = render_color(frame) if picture.ndim == 3 else render_color(frame)[..., 0]
    is_known = any(path.match(name) for name in OTHERWISE)

    difference = np.abs(picture - ours).max()

    assert (difference > 1) == is_known


@pytest.mark.parametrize(
    "name", ["693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm", "examples_jpeg2k.dcm", "MR_small_jp2klossless.dcm"]
)
def test_jpeg_2000_which_dcmtk_does_not_decode_is_the_same_by_another_decoder(name: str) -> None:
    path = next(path for path in (*REAL_FILES, *OTHERS) if path.name == name)
    image_object = open_image(path.read_bytes())
    other = get_decoder(image_object.decoder.UID)

    expected, _ = other.as_array(image_object.ds, index=0, decoding_plugin="gdcm")

    assert np.array_equal(image_object.frame(0).stored, expected)


LADDER = np.arange(4096, dtype="u2").reshape(64, 64)
SIGNED_LADDER = np.arange(-2048, 2048, dtype="i2").reshape(64, 64)
WIDE_WINDOW = {"WindowCenter": 1000, "WindowWidth": 1500}


@needs_dcmtk
@pytest.mark.parametrize(
    ("stored", "elements", "option"),
    [
        pytest.param(LADDER | 0xB000, {"bits_stored": 12, **WIDE_WINDOW}, "+Wi", id="garbage above"),
        pytest.param(SIGNED_LADDER << 4, {"bits_stored": 12, "high_bit": 15, **WIDE_WINDOW}, "+Wi", id="high bit 15"),
        pytest.param(LADDER, {"photometric": "MONOCHROME1", **WIDE_WINDOW}, "+Wi", id="monochrome 1"),
        pytest.param(LADDER, {"VOILUTFunction": "SIGMOID", **WIDE_WINDOW}, "+Wi", id="sigmoid"),
        pytest.param(
            LADDER, {"RescaleSlope": -1.5, "RescaleIntercept": 3000, **WIDE_WINDOW}, "+Wi", id="falling slope"
        ),
        pytest.param(
            LADDER,
            {"ModalityLUTSequence": lookup_table(100, list(range(3000, 1000, -2)), 12)},
            "+Wm",
            id="modality lut",
        ),
        pytest.param(
            SIGNED_LADDER,
            {
                "RescaleSlope": 2,
                "RescaleIntercept": -1000,
                "VOILUTSequence": lookup_table(-3000, list(range(0, 64000, 16)), 16),
            },
            "+Wl",
            id="voi lut after rescale",
        ),
    ],
)
def test_made_images_look_as_in_dcmtk(
    stored: np.ndarray[Any, Any], elements: dict[str, Any], option: str, tmp_path: Path
) -> None:
    path = tmp_path / "image.dcm"
    path.write_bytes(image(stored, **elements))
    options = (option,) if option == "+Wm" else (option, "1")

    picture = dcmtk_picture(path, tmp_path, *options)

    assert picture is not None
    assert np.abs(picture - 255 * render(decode_frame(path.read_bytes()))).max() <= GRAY_LEVELS


def test_32_bit_big_endian_is_the_same_picture_as_little_endian() -> None:
    little, big = (
        render(decode_frame(Path(str(get_testdata_file(name))).read_bytes()))
        for name in ("rtdose_1frame.dcm", "rtdose_expb_1frame.dcm")
    )

    assert np.array_equal(little, big)
