"""A clinical zone of a few objects of every kind of pixel data, served on its own, without users."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydicom import dcmread, dcmwrite
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, encapsulate_extended

from imaging_pipeline.catalog import bronze
from imaging_pipeline.catalog.bronze import load_bronze
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.metadata.silver import VersionPolicy, load_silver
from imaging_pipeline.settings import Settings
from imaging_pipeline.tensors import thumbnail_batch
from imaging_pipeline.tensors.thumbnail_batch import load_original_thumbnails
from imaging_pipeline.web.errors import install_errors
from imaging_pipeline.web.index import Index
from imaging_pipeline.web.wado.routes import router
from imaging_pipeline.web.zone import Zone, ZoneName
from imaging_pipeline_tests.conftest import environment, folder
from imaging_pipeline_tests.dicom.images import image

BATCH = "2026-01-01.00001"
ROOT = "http://testserver/dicom-web"
LARGE_FRAMES = 400

FILES = (
    "CT_small.dcm", "MR_small_bigendian.dcm", "JPEG2000.dcm", "SC_rgb_rle_2frame.dcm", "examples_ybr_color.dcm",
    "image_dfl.dcm", "test-SR.dcm", "examples_palette.dcm", "SC_ybr_full_422_uncompressed.dcm",
)  # fmt: skip
"""Of the pydicom package."""


@dataclass(frozen=True, slots=True)
class Served:
    """What is served, and a client.

    Attributes:
        client: asks the service.
        app: the service.
        zone: what it serves.
        landing: the folder with the objects.
    """

    client: TestClient
    app: FastAPI
    zone: Zone
    landing: Path

    def stored(self, name: str) -> bytes:
        """The bytes of an object by its file name."""
        if name in ("stored.dcm", "deflated.dcm"):
            with zipfile.ZipFile(self.landing / "scans.zip") as archive:
                return archive.read(name)
        return (self.landing / name).read_bytes()

    def path(self, name: str) -> str:
        """Where an object is, by its file name."""
        ds = dcmread(BytesIO(self.stored(name)), stop_before_pixels=True)
        return f"{ROOT}/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"


@contextmanager
def served(home: Path) -> Iterator[Served]:
    """The objects, in a lake with thumbnails, and a service of them."""
    landing = home / "landing"
    landing.mkdir()
    _write_objects(landing)
    workspace = Workspace(Settings.from_environment(environment(home, WORKERS="1")))
    reader = workspace.reader()
    (page,) = folder(landing).pages(None, datetime.now(UTC))
    members = [member for each in page.objects if each.is_archive for member in reader.list_members(each)]
    manifest = [each for each in page.objects if not each.is_archive] + members
    with workspace.identified() as lake, pytest.MonkeyPatch.context() as patch:
        for module in (bronze, thumbnail_batch):  # starting processes would take most of the time
            patch.setattr(module, "map_chunks", lambda function, items, **_: map(function, [items] if items else []))
        load_bronze(lake, BATCH, manifest, reader, run_id="run", workers=1)
        load_silver(lake, BATCH, VersionPolicy.KEEP_LAST)
        load_original_thumbnails(lake, BATCH, reader, workers=1)
    zone = replace(workspace.zone(ZoneName.CLINICAL), open_lake=workspace.identified)  # attached already
    index = Index(zone)
    index.refresh()
    app = FastAPI()
    install_errors(app)
    app.include_router(router(zone, index), prefix="/dicom-web")
    with TestClient(app, raise_server_exceptions=False) as client:
        yield Served(client, app, zone, landing)
    index.close()


def parts(response_bytes: bytes, content_type: str) -> list[tuple[str, bytes]]:
    """Content types and contents of a multipart answer."""
    boundary = content_type.partition("boundary=")[2].partition(";")[0].encode()
    assert response_bytes.endswith(b"--" + boundary + b"--\r\n")
    found = []
    for part in response_bytes.split(b"--" + boundary + b"\r\n")[1:]:
        head, _, content = part.partition(b"\r\n\r\n")
        kind = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))["Content-Type"]
        content = content.removesuffix(b"--" + boundary + b"--\r\n").removesuffix(b"\r\n")
        found.append((kind, content))
    return found


def slices(count: int = 5) -> list[bytes]:
    """A series of CT slices whose values tell their number."""
    return [
        image(
            np.full((32, 32), 100 * number, "u2"),
            SOPClassUID="1.2.840.10008.5.1.4.1.1.2",
            SOPInstanceUID=f"2.25.100.{number + 1}",
            StudyInstanceUID="2.25.100",
            SeriesInstanceUID="2.25.101",
            InstanceNumber=number + 1,
            Modality="CT",
            PatientID="P100",
        )
        for number in range(count)
    ]


def _write_objects(landing: Path) -> None:
    for name in FILES:
        (landing / name).write_bytes(Path(str(get_testdata_file(name))).read_bytes())
    for number, data in enumerate(slices()):
        (landing / f"slice{number}.dcm").write_bytes(data)
    (landing / "large.dcm").write_bytes(large())
    (landing / "bits.dcm").write_bytes(bits())
    colour = dcmread(landing / "examples_ybr_color.dcm")
    streams = _streams(colour.PixelData)[:10]
    for number, name in enumerate(("no_table", "table", "extended", "fragments"), start=1):
        (landing / f"{name}.dcm").write_bytes(_compressed(name, number, streams))
    with zipfile.ZipFile(landing / "scans.zip", "w") as archive:
        for number, (name, method) in enumerate((("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED))):
            archive.writestr(f"{name}.dcm", large(f"2.25.30{number}"), method)


def large(uid: str = "2.25.200") -> bytes:
    """A native object of 400 frames of 64 x 64, each filled with its number."""
    frames = np.repeat(np.arange(LARGE_FRAMES, dtype="u2"), 64 * 64).reshape(LARGE_FRAMES, 64, 64)
    return image(frames, SOPInstanceUID=uid, StudyInstanceUID="2.25.201", SeriesInstanceUID="2.25.202", PatientID="P2")


def bit_frames() -> np.ndarray:  # type: ignore[type-arg]
    """Three frames of 5 x 5 bits."""
    return np.random.default_rng(5).integers(0, 2, (3, 5, 5), "u1")


def bits() -> bytes:
    """Frames of one bit a pixel, of which the second does not begin with a byte (PS3.5 8.1.1)."""
    ds = dcmread(BytesIO(image(np.zeros((3, 5, 5), "u1"), SOPInstanceUID="2.25.210", PatientID="P3")))
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "2.25.211", "2.25.212"
    ds.BitsAllocated = ds.BitsStored = 1
    ds.HighBit = 0
    ds.PixelData = np.packbits(bit_frames().ravel(), bitorder="little").tobytes()
    return _saved(ds)


def _compressed(name: str, number: int, streams: Sequence[bytes]) -> bytes:
    ds = dcmread(str(get_testdata_file("examples_ybr_color.dcm")))
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"2.25.22{number}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.NumberOfFrames = "2.25.220", "2.25.229", len(streams)
    if name == "extended":
        ds.PixelData, ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = encapsulate_extended(list(streams))
    elif name == "table":
        ds.PixelData = encapsulate(list(streams), fragments_per_frame=3, has_bot=True)
    else:
        ds.PixelData = encapsulate(list(streams), fragments_per_frame=2 if name == "fragments" else 1, has_bot=False)
    ds["PixelData"].is_undefined_length = True
    return _saved(ds)


def _streams(value: bytes) -> list[bytes]:
    """Contents of the items of encapsulated pixel data behind the offset table."""
    found, at = [], 0
    while value[at : at + 4] == b"\xfe\xff\x00\xe0":
        (length,) = struct.unpack_from("<I", value, at + 4)
        found.append(value[at + 8 : at + 8 + length])
        at += 8 + length
    return found[1:]


def _saved(ds: object) -> bytes:
    target = BytesIO()
    dcmwrite(target, ds, enforce_file_format=True)  # type: ignore[arg-type]
    return target.getvalue()
