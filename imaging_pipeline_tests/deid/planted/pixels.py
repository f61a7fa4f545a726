"""Plants in pixels: burned-in text of all sizes and depths, bits nobody shows, and what compressed streams carry."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataelem import DataElement
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from imaging_pipeline_tests.deid.planted import objects as of
from imaging_pipeline_tests.deid.planted.objects import set_pixels, start, with_image
from imaging_pipeline_tests.deid.planted.patients import INSTITUTION, Patient
from imaging_pipeline_tests.deid.planted.plants import Kind, Mark, Planted, Planter, encode
from imaging_pipeline_tests.deid.planted.search import quietly

SIZE = (256, 320)


@dataclass(frozen=True)
class Drawn:
    """A text in a picture: where, how large (pixels), how bright against the picture (part of the range)."""

    text: str
    at: tuple[int, int]
    size: int = 18
    contrast: float = 0.9
    is_upright: bool = False
    is_hidden: bool = True
    kind: Kind = Kind.NAME


def ink(shape: tuple[int, int], drawn: Drawn) -> np.ndarray:
    """How much ink is where, (rows, columns), 0 to 1."""
    font = ImageFont.load_default(drawn.size)
    right, bottom = font.getbbox(drawn.text)[2:]
    label = Image.new("L", (int(right) + 2, int(bottom) + 2))
    ImageDraw.Draw(label).text((1, 1), drawn.text, fill=255, font=font)
    if drawn.is_upright:
        label = label.transpose(Image.Transpose.ROTATE_90)
    canvas = Image.new("L", (shape[1], shape[0]))
    canvas.paste(label, (drawn.at[1], drawn.at[0]))
    return np.asarray(canvas, dtype=np.float64) / 255


def draw(planter: Planter, pixels: np.ndarray, drawn: Drawn, frames: range | None = None, bits: int = 8) -> None:
    """Burn ``drawn`` into ``frames`` (all of them by default) and note each."""
    rows, columns = pixels.shape[1:3]
    strength = ink((rows, columns), drawn)
    where = np.argwhere(strength > 0.2)
    (top, left), (bottom, right) = where.min(axis=0), where.max(axis=0) + 1
    weight = strength * drawn.contrast
    for frame in frames if frames is not None else range(len(pixels)):
        for sample in pixels[frame].reshape(rows, columns, -1).transpose(2, 0, 1):
            sample[...] = (sample * (1 - weight) + weight * (2**bits - 1)).astype(pixels.dtype)
        box = (int(top), int(left), int(bottom), int(right))
        planter.marks.append(Mark(frame, box, drawn.is_hidden, drawn.kind))
    set_pixels(planter, pixels)


def visible(before: FileDataset, after: FileDataset, mark: Mark) -> float:
    """How much of a mark is still seen: the correlation of its box before and after, 0 to 1."""
    boxes = [_box(ds, mark) for ds in (before, after)]
    if min(float(box.std()) for box in boxes) < 1e-9:
        return 0.0
    return float(abs(np.corrcoef(boxes[0].ravel(), boxes[1].ravel())[0, 1]))


def _box(ds: FileDataset, mark: Mark) -> np.ndarray:
    frames = frames_of(ds)
    top, left, bottom, right = mark.box
    return frames[mark.frame][top:bottom, left:right].reshape(bottom - top, right - left, -1)[..., 0].astype(float)


def frames_of(ds: FileDataset) -> np.ndarray:
    """Pixels with frames first, whatever their number; a planar image as if it were not."""
    if "TransferSyntaxUID" not in ds.file_meta:
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    pixels = ds.pixel_array
    return pixels if int(ds.get("NumberOfFrames") or 1) > 1 else pixels[None]


def _name_of(patient: Patient) -> str:
    return f"{patient.family.upper()}, {patient.given.upper()}"


def ultrasound(patient: Patient, frames: int = 1) -> Planted:
    """A colour ultrasound with a banner above the region it declares (PS3.3 C.8.5.5)."""
    planter = start(patient, of.US_MULTI if frames > 1 else of.US)
    pixels = with_image(planter, SIZE, bits=8, frames=frames, samples=3, photometric="RGB")
    region = planter.inside("SequenceOfUltrasoundRegions")
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 10, 60
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 309, 250
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX = region.PhysicalDeltaY = 0.02
    draw(planter, pixels, Drawn(_name_of(patient), (4, 6)))
    draw(planter, pixels, Drawn(f"{patient.patient_id} 05-Jan-2021", (30, 6), 14, kind=Kind.NUMBER))
    draw(planter, pixels, Drawn(INSTITUTION, (30, 190), 11, kind=Kind.INSTITUTION))
    return planter.done(f"ultrasound-{frames}", is_clean=False)


def screen_capture(patient: Patient) -> Planted:
    """A secondary capture in grey with a report line at the bottom."""
    planter = start(patient, of.SC)
    planter.ds.ConversionType = "WSD"
    pixels = with_image(planter, SIZE, bits=8)
    draw(planter, pixels, Drawn(f"Name: {_name_of(patient)}", (225, 8), 16))
    draw(planter, pixels, Drawn("DOB 12.04.1961  Dr. Wiesengrund", (6, 8), 13, kind=Kind.DATE))
    return planter.done("screen-capture", is_clean=False)


def film(patient: Patient, name: str, *drawn: Drawn, bits: int = 12, photometric: str = "MONOCHROME2") -> Planted:
    """A radiograph that says nothing of burned-in text, or denies it, and has it."""
    planter = start(patient, of.DX)
    planter.ds.PresentationIntentType = "FOR PRESENTATION"
    pixels = with_image(planter, SIZE, bits=bits, photometric=photometric)
    if photometric == "MONOCHROME1":
        pixels[...] = 2**bits - 1 - pixels
    planter.ds.BurnedInAnnotation = "NO"
    for one in drawn:
        draw(planter, pixels, one, bits=bits)
    return planter.done(f"film-{name}", is_clean=not any(one.is_hidden for one in drawn))


def films(patient: Patient) -> list[Planted]:
    """Radiographs with names in different sizes, places and contrasts, and with markers that must stay."""
    name, number = _name_of(patient), patient.patient_id
    return [
        film(patient, "clean"),
        film(patient, "marker", Drawn("R", (12, 280), 30, is_hidden=False)),
        film(patient, "marker-and-name", Drawn("L", (12, 280), 30, is_hidden=False), Drawn(name, (230, 6))),
        film(patient, "position", Drawn("AP ERECT", (230, 200), 16, is_hidden=False)),
        film(patient, "small", Drawn(name, (240, 150), 10)),
        film(patient, "large", Drawn(patient.family[:8].upper(), (90, 10), 48)),
        film(patient, "faint", Drawn(name, (6, 6), 18, 0.25)),
        film(patient, "upright", Drawn(name[:18], (20, 4), 16, is_upright=True)),
        film(patient, "over-anatomy", Drawn(number, (120, 90), 20, kind=Kind.NUMBER)),
        film(patient, "inverse", Drawn(name, (8, 8)), photometric="MONOCHROME1"),
        film(patient, "16-bit", Drawn(name, (8, 8)), bits=16),
        film(patient, "initials-and-date", Drawn("OTZ 04/12/61", (235, 220), 12, kind=Kind.DATE)),
    ]


def windowed(patient: Patient) -> Planted:
    """Letters a few grey levels above the ground: the window of the header shows them, the whole range does not."""
    planter = start(patient, of.CT)
    pixels = with_image(planter, SIZE, bits=16)
    rng = np.random.default_rng(1)
    pixels[...] = 1000 + rng.integers(0, 3, pixels.shape)
    pixels[0, 100:150, 100:200] = 60_000
    planter.ds.WindowCenter, planter.ds.WindowWidth = "1010", "60"
    draw(planter, pixels, Drawn(_name_of(patient), (8, 8), contrast=40 / 2**16), bits=16)
    return planter.done("windowed", is_clean=False)


def signed(patient: Patient) -> Planted:
    """Hounsfield units as signed numbers, with a name."""
    planter = start(patient, of.CT)
    pixels = with_image(planter, SIZE, bits=16) // 32
    draw(planter, pixels, Drawn(_name_of(patient), (8, 8)), bits=12)
    planter.ds.PixelRepresentation = 1
    planter.keeps = [keep for keep in planter.keeps if keep.path != "00280103"]
    set_pixels(planter, (pixels.astype(np.int16) - 1024).view(np.uint16))
    return planter.done("signed", is_clean=False)


def one_frame_of_many(patient: Patient) -> Planted:
    """A cine run with the name in the last frame only."""
    planter = start(patient, of.XA)
    pixels = with_image(planter, SIZE, bits=8, frames=3)
    draw(planter, pixels, Drawn(_name_of(patient), (232, 6)), range(2, 3))
    return planter.done("last-frame", is_clean=False)


def palette(patient: Patient) -> Planted:
    """A palette image whose look-up table is text as well."""
    planter = start(patient, of.US)
    pixels = with_image(planter, SIZE, bits=8, photometric="PALETTE COLOR")
    draw(planter, pixels, Drawn(_name_of(patient), (8, 8)))
    table = np.linspace(0, 65535, 256).astype(np.uint16).tobytes()
    for colour in ("Red", "Green", "Blue"):
        setattr(planter.ds, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(planter.ds, f"{colour}PaletteColorLookupTableData", table)
    return planter.done("palette", is_clean=False)


def planar(patient: Patient) -> Planted:
    """Colour by plane, with a name."""
    planter = start(patient, of.SC)
    planter.ds.ConversionType = "SYN"
    pixels = with_image(planter, SIZE, bits=8, samples=3, photometric="RGB")
    draw(planter, pixels, Drawn(_name_of(patient), (8, 8)))
    planter.ds.PlanarConfiguration = 1
    set_pixels(planter, np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
    return planter.done("planar", is_clean=False)


def compressed(patient: Patient, syntax: str, *, has_name: bool) -> Planted:
    """A compressed radiograph or colour capture, with or without a name."""
    is_lossy = syntax == JPEGBaseline8Bit
    planter = start(patient, of.CT if not is_lossy else of.DX)
    pixels = with_image(planter, SIZE, bits=8 if is_lossy else 12)
    if has_name:
        draw(planter, pixels, Drawn(_name_of(patient), (8, 8)), bits=8 if is_lossy else 12)
    name = f"compressed-{syntax.rsplit('.', 1)[-1]}-{'name' if has_name else 'clean'}"
    if is_lossy:
        planter.ds.LossyImageCompression, planter.ds.LossyImageCompressionRatio = "01", "10"
        _encapsulate(planter, _jpeg(pixels[0]))
        return planter.done(name, syntax, is_clean=not has_name)
    ds = quietly(encode(planter.ds, str(ExplicitVRLittleEndian)))
    ds.compress(syntax, generate_instance_uid=False)
    buffer = BytesIO()
    ds.save_as(buffer)
    return planter.file(name, buffer.getvalue(), is_clean=not has_name)


def _jpeg(pixels: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def _encapsulate(planter: Planter, *streams: bytes) -> None:
    element = DataElement(0x7FE00010, "OB", encapsulate(list(streams)))
    element.is_undefined_length = True
    planter.ds.add(element)


def inside_streams(patient: Patient) -> list[Planted]:
    """JPEG and JPEG 2000 comments and application segments, bytes behind the end and in unused parts of a stream."""
    name = patient.name.encode("utf-8")
    made = []
    comment = b"\xff\xfe" + (len(name) + 2).to_bytes(2, "big") + name
    exif = b"\xff\xe1" + (len(name) + 8).to_bytes(2, "big") + b"Exif\0\0" + name
    for where in ("comment", "exif", "behind", "second-fragment"):
        planter = start(patient, of.DX)
        pixels = with_image(planter, (64, 64), bits=8)
        planter.ds.BurnedInAnnotation = "NO"
        stream = _jpeg(pixels[0])
        if where in ("comment", "exif"):
            stream = stream[:2] + (comment if where == "comment" else exif) + stream[2:]
        if where == "behind":
            stream += name
        _encapsulate(planter, stream)
        if where == "second-fragment":
            ds = planter.ds
            data = bytes(ds.PixelData) + b""
            end = b"\xfe\xff\xdd\xe0\0\0\0\0"
            data = data.removesuffix(end) + b"\xfe\xff\x00\xe0" + (len(name) + len(name) % 2).to_bytes(4, "little")
            _pixel_bytes(planter, data + name + b"\0" * (len(name) % 2))
        planter.note(Kind.NAME, f"JPEG {where}", patient.family)
        made.append(planter.done(f"jpeg-{where}", str(JPEGBaseline8Bit)))
    return [*made, _wavelet_comment(patient), _run_length_tail(patient)]


def _pixel_bytes(planter: Planter, data: bytes) -> None:
    element = DataElement(0x7FE00010, "OB", data)
    element.is_undefined_length = True
    planter.ds.add(element)


def _wavelet_comment(patient: Patient) -> Planted:
    planter = start(patient, of.CT)
    with_image(planter, (64, 64))
    ds = quietly(encode(planter.ds))
    ds.compress(JPEG2000Lossless, generate_instance_uid=False)
    stream = next(generate_frames(ds.PixelData, number_of_frames=1))
    name = patient.name.encode("utf-8")
    at = stream.index(b"\xff\x52")
    stream = stream[:at] + b"\xff\x64" + (len(name) + 4).to_bytes(2, "big") + b"\0\1" + name + stream[at:]
    _encapsulate(planter, stream)
    planter.note(Kind.NAME, "JPEG 2000 comment", patient.family)
    return planter.done("jpeg2000-comment", str(JPEG2000Lossless))


def _run_length_tail(patient: Patient) -> Planted:
    planter = start(patient, of.CT)
    with_image(planter, (64, 64))
    ds = quietly(encode(planter.ds))
    ds.compress(RLELossless, generate_instance_uid=False)
    stream = next(generate_frames(ds.PixelData, number_of_frames=1)) + patient.name.encode("utf-8")
    _encapsulate(planter, stream + b"\0" * (len(stream) % 2))
    planter.note(Kind.NAME, "behind run-length data", patient.family)
    return planter.done("rle-tail", str(RLELossless))


def hidden_bits(patient: Patient) -> list[Planted]:
    """Text in the unused upper bits of pixels, with and without an overlay that declares them, and behind the image."""
    made = []
    for where in ("declared", "undeclared"):
        planter = start(patient, of.CT)
        pixels = with_image(planter, SIZE)
        letters = ink(SIZE, Drawn(_name_of(patient), (8, 8))) > 0.5
        pixels[0][letters] |= 1 << 12
        set_pixels(planter, pixels)
        if where == "declared":
            ds = planter.ds
            ds.add(DataElement(0x60000010, "US", SIZE[0]))
            ds.add(DataElement(0x60000011, "US", SIZE[1]))
            ds.add(DataElement(0x60000040, "CS", "G"))
            ds.add(DataElement(0x60000050, "SS", [1, 1]))
            ds.add(DataElement(0x60000100, "US", 16))
            ds.add(DataElement(0x60000102, "US", 12))
        made.append(planter.done(f"hidden-bits-{where}", is_clean=False))
    planter = start(patient, of.CT)
    with_image(planter, (64, 64))
    planter.ds.PixelData = planter.ds.PixelData + patient.name.encode("utf-8").ljust(64, b" ")[:64]
    planter.ds["PixelData"].VR = "OW"
    planter.note(Kind.NAME, "behind the image", patient.family)
    made.append(planter.done("behind-image", is_clean=False))
    return made


COMPRESSIONS = (str(RLELossless), str(JPEGLSLossless), str(JPEG2000Lossless), str(JPEGBaseline8Bit))
