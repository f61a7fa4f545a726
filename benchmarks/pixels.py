"""From DICOM bytes to a 224 x 224 tensor, against pydicom and Pillow. Last line: one JSON object.

Films (2,048 pixels) and slices (512), 12 bits, and colour pictures (800 x 600) of synthetic chests are encoded in each
transfer syntax. ``ours`` is `decode_frame` and the recipe ``chest-xray-224``. ``pydicom`` makes the same picture with
pydicom's `pixel_array`, modality and VOI functions and Pillow's resize; ``minmax`` leaves out modality and VOI, and
shows another picture: the least that people do. ``codec`` is the decoding library alone, called on the encoded frame.

CPU time (user and system) of the process an image, in turn, median of the rounds: three, or what ``--rounds`` says.
dcmcjpeg (DCMTK) encodes the JPEG forms with 12 bits, imagecodecs HTJ2K; what is not installed is left out and named.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import shutil
import statistics
import struct
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jpeg_ls
import numpy as np
import openjpeg
from PIL import Image, ImageOps
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.filewriter import dcmwrite
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.pixels.decoders.base import DecodeRunner
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from imaging_pipeline.dicom.decoders import decoder_for
from imaging_pipeline.dicom.pixels import decode_frame
from imaging_pipeline.samples.phantoms import make_image, plan_patient
from imaging_pipeline.tensors.images import image_tensor
from imaging_pipeline.tensors.recipe import load_recipe

SIZE = 224
EDGES = {"film": 2048, "slice": 512}
NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
DCMTK = {JPEGExtended12Bit: ("+ee", "+q", "95"), JPEGLosslessSV1: ("+e1",)}
NAMES = {
    ImplicitVRLittleEndian: "implicit",
    ExplicitVRLittleEndian: "explicit",
    ExplicitVRBigEndian: "big_endian",
    DeflatedExplicitVRLittleEndian: "deflated",
    RLELossless: "rle",
    JPEGBaseline8Bit: "jpeg_8",
    JPEGExtended12Bit: "jpeg_12",
    JPEGLosslessSV1: "jpeg_lossless",
    JPEGLSLossless: "jpeg_ls",
    JPEG2000Lossless: "jpeg2000_lossless",
    JPEG2000: "jpeg2000",
    HTJ2KLossless: "htj2k_lossless",
}

Task = Callable[[], object]


# The images


def film(edge: int) -> Dataset:
    """One synthetic chest film, native, 12 bits."""
    plan = next(plan for number in range(99) for plan in plan_patient(3, number, edge))
    ds = dcmread(io.BytesIO(make_image(plan).content))
    ds.PixelData = ds.pixel_array.astype("<u2").tobytes()
    ds["PixelData"].VR = "OW"
    return ds


def picture() -> Dataset:
    """A colour picture of 800 x 600: a film's greys as a ramp of hues."""
    ds = film(800)
    gray = (ds.pixel_array[:600, :800].astype(float) * 255 / ds.pixel_array.max()).astype("u1")
    padded = np.zeros((600, 800), "u1")
    padded[: gray.shape[0], : gray.shape[1]] = gray
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PlanarConfiguration = 600, 800, 3, 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PhotometricInterpretation = 8, 8, 7, "RGB"
    ds.PixelData = np.stack([padded, 255 - padded, padded // 2 + 60], axis=-1).tobytes()
    return ds


def eight_bits(ds: Dataset) -> Dataset:
    """The same film with 8 bits, its window scaled along."""
    ds.PixelData = (ds.pixel_array >> (ds.BitsStored - 8)).astype("u1").tobytes()
    factor = 2 ** (ds.BitsStored - 8)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    ds["PixelData"].VR = "OB"
    for keyword in ("WindowCenter", "WindowWidth"):
        if keyword in ds:
            values = np.atleast_1d(np.asarray(ds[keyword].value, float)) / factor
            setattr(ds, keyword, [round(value, 3) for value in values])
    return ds


def encoded(ds: Dataset, uid: UID) -> bytes | None:
    """The object in a transfer syntax; None when nothing here encodes it."""
    ds = dcmread(io.BytesIO(written(ds, ExplicitVRLittleEndian)))
    if uid in NATIVE:
        if uid == ExplicitVRBigEndian and ds.BitsAllocated == 16:
            ds.PixelData = ds.pixel_array.byteswap().tobytes()
        return written(ds, uid)
    if uid in DCMTK:
        return by_dcmtk(ds, DCMTK[uid])
    if uid == JPEGBaseline8Bit and ds.BitsStored > 8:
        ds = eight_bits(ds)
    frame = encode_frame(ds, uid)
    if frame is None:
        return None
    ds.PixelData = encapsulate([frame])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return written(ds, uid)


def encode_frame(ds: Dataset, uid: UID) -> bytes | None:
    if uid == JPEGBaseline8Bit:
        Image.fromarray(ds.pixel_array).save(target := io.BytesIO(), format="JPEG", quality=92)
        if ds.SamplesPerPixel == 3:
            ds.PhotometricInterpretation = "YBR_FULL_422"
        return target.getvalue()
    if uid in (JPEG2000Lossless, JPEG2000):
        ratio: dict[str, Any] = {"j2k_cr": [10]} if uid == JPEG2000 else {}
        if ds.SamplesPerPixel == 3:
            ds.PhotometricInterpretation = "YBR_ICT" if ratio else "YBR_RCT"
        ds.compress(uid, encoding_plugin="pylibjpeg", **ratio)
        return get_frame(ds.PixelData, 0, number_of_frames=1)
    if uid == JPEGLSLossless:
        return bytes(jpeg_ls.encode_array(ds.pixel_array, interleave_mode=2 if ds.SamplesPerPixel == 3 else 0))
    if uid == HTJ2KLossless:
        if importlib.util.find_spec("imagecodecs") is None:
            return None
        import imagecodecs  # noqa: PLC0415 - no dependency

        return bytes(imagecodecs.htj2k_encode(ds.pixel_array, reversible=True))
    ds.compress(uid, encoding_plugin="pydicom")
    return get_frame(ds.PixelData, 0, number_of_frames=1)


def by_dcmtk(ds: Dataset, options: tuple[str, ...]) -> bytes | None:
    if shutil.which("dcmcjpeg") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.dcm"), Path(folder, "out.dcm")
        source.write_bytes(written(ds, ExplicitVRLittleEndian))
        subprocess.run(["dcmcjpeg", "-q", *options, str(source), str(target)], check=True)
        return target.read_bytes()


def written(ds: Dataset, uid: UID) -> bytes:
    fresh = Dataset()
    fresh.update({element.tag: element for element in ds})  # a data set that was read cannot change its byte order
    fresh.file_meta = FileMetaDataset()
    fresh.file_meta.TransferSyntaxUID = uid
    fresh.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    fresh.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    dcmwrite(buffer := io.BytesIO(), fresh, enforce_file_format=True)
    return buffer.getvalue()


# The sides


def ours(data: bytes) -> object:
    return image_tensor(decode_frame(data), RECIPE)


def with_pydicom(data: bytes) -> object:
    ds = dcmread(io.BytesIO(data))
    pixels = pixel_array(ds)
    if pixels.ndim == 3:
        return fitted(Image.fromarray(pixels).convert("L"))
    shown = apply_voi_lut(apply_modality_lut(pixels, ds), ds)
    levels = to_bytes(shown)
    return fitted(Image.fromarray(255 - levels if ds.PhotometricInterpretation == "MONOCHROME1" else levels))


def with_minmax(data: bytes) -> object:
    pixels = pixel_array(dcmread(io.BytesIO(data)))
    return fitted(Image.fromarray(pixels).convert("L") if pixels.ndim == 3 else Image.fromarray(to_bytes(pixels)))


def pixel_array(ds: Dataset) -> Any:
    return ds.pixel_array


def to_bytes(values: Any) -> Any:
    low, high = values.min(), values.max()
    return ((values - low) * (255.0 / (high - low))).astype("u1")


def fitted(gray: Image.Image) -> Any:
    return np.asarray(ImageOps.pad(gray, (SIZE, SIZE), Image.Resampling.BILINEAR))


def codec(data: bytes) -> Task | None:
    """The library that decodes the frame, called on it; None: nothing is compressed."""
    ds = dcmread(io.BytesIO(data))
    uid = ds.file_meta.TransferSyntaxUID
    if not uid.is_encapsulated:
        return None
    frame = get_frame(ds.PixelData, 0, number_of_frames=1)
    if uid == JPEGBaseline8Bit:
        return lambda: Image.open(io.BytesIO(frame)).tobytes()
    if uid == JPEGLSLossless:
        return lambda: jpeg_ls.decode(np.frombuffer(frame, "u1"))
    if uid in (JPEG2000Lossless, JPEG2000, HTJ2KLossless):
        return lambda: openjpeg.utils.decode(io.BytesIO(frame), j2k_format=0, reshape=False)
    if uid == RLELossless:
        return lambda: packbits(frame, ds.Rows * ds.Columns)
    decoder = decoder_for(uid, is_12_bit=uid == JPEGExtended12Bit)
    assert decoder is not None
    runner = DecodeRunner(uid)
    runner.set_source(ds)
    runner.set_option("number_of_frames", 1)
    (plugin, *_) = decoder._available.values()  # noqa: SLF001 - GDCM has no simpler call than its plugin
    return lambda: plugin(frame, runner)


def packbits(frame: bytes, size: int) -> None:
    number, *starts = struct.unpack("<16L", frame[:64])
    for start, end in zip(starts, [*starts[1:number], len(frame)], strict=False):
        Image.frombytes("L", (size, 1), frame[start:end], "packbits", "L")


RECIPE = load_recipe("chest-xray-224")


# The comparison


def cpu_ms(task: Task, least: float = 0.03) -> float:
    """CPU time of one call, of as many as take 30 ms."""
    calls, begin = 0, time.process_time()
    while (used := time.process_time() - begin) < least:
        task()
        calls += 1
    return used / calls * 1e3


def compare(name: str, data: bytes, rounds: int) -> dict[str, float]:
    sides: dict[str, Task] = {"ours": lambda: ours(data)}
    if is_decoded_by_pydicom(data):
        sides |= {"pydicom": lambda: with_pydicom(data), "minmax": lambda: with_minmax(data)}
    if library := codec(data):
        sides["codec"] = library
    times: Mapping[str, list[float]] = {side: [] for side in sides}
    for round_number in range(rounds):
        for side in sides if round_number % 2 else reversed(list(sides)):
            times[side].append(cpu_ms(sides[side]))
    figures = {f"{name}_ms_{side}": statistics.median(values) for side, values in times.items()}
    our = figures[f"{name}_ms_ours"]
    for peer in ("pydicom", "minmax"):
        if peer in sides:
            figures[f"{name}_ratio_vs_{peer}"] = figures[f"{name}_ms_{peer}"] / our
    if "codec" in sides:
        figures[f"{name}_codec_share"] = figures[f"{name}_ms_codec"] / our
    print("  ".join(f"{key.removeprefix(name + '_')} {value:.2f}" for key, value in figures.items()), f" {name}")
    return figures


def is_decoded_by_pydicom(data: bytes) -> bool:
    """It has no library for JPEG with 12 bits."""
    try:
        pixel_array(dcmread(io.BytesIO(data)))
    except (RuntimeError, NotImplementedError):
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    sources = {kind: film(edge) for kind, edge in EDGES.items()} | {"color": picture()}
    figures: dict[str, float] = {}
    for uid, form in NAMES.items():
        for kind, ds in sources.items():
            if kind == "color" and uid in DCMTK:
                continue
            data = encoded(ds, uid)
            if data is None:
                print(f"{form} is left out: nothing here encodes it")
                break
            figures |= compare(f"{form}_{kind}", data, options.rounds)
    print(json.dumps({key: round(value, 3) for key, value in figures.items()}))


if __name__ == "__main__":
    main()
