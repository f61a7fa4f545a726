"""Films made from phantoms, as a release leaves them: files, rows and proofs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from imaging_pipeline.deid.rows import write_rows
from imaging_pipeline.dicom.header import read_header
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.placing import StoredObject
from imaging_pipeline.metadata.silver import entity_rows
from imaging_pipeline.objects.folder import path_to_uri
from imaging_pipeline.objects.model import key_of
from imaging_pipeline.samples.phantoms import make_image, plan_patient
from imaging_pipeline.sources import ElementMode

BATCH = "2026-01-31.00001"


def films(count: int, size: int = 160) -> Iterator[Dataset]:
    """Phantom films of different patients and machines."""
    for number in range(count):
        plan = next(plan_patient(11, number, size))
        yield pydicom.dcmread(BytesIO(make_image(plan).content))


def encoded(film: Dataset) -> bytes:
    buffer = BytesIO()
    film.save_as(buffer)
    return buffer.getvalue()


def release(lake: Lake, folder: Path, objects: list[bytes], batch_id: str = BATCH) -> None:
    """Put objects where released ones are, in the place of what the batch had."""
    stored = [_stored(folder, batch_id, data) for data in objects]
    before = lake.rows("SELECT instance_key FROM deid.deid_verification WHERE arrival_batch = ?", [batch_id])
    keys = [_key(data) for data in objects]
    with lake.transaction():
        write_rows(
            lake,
            batch_id,
            entity_rows(batch_id, stored).tables,
            [_proof(each, key, batch_id) for each, key in zip(stored, keys, strict=True)],
            {str(key) for (key,) in before} - set(keys),
            rewritten=batch_id,
            element_mode=ElementMode.ALL,
        )


def _key(data: bytes) -> str:
    return key_of(str(pydicom.dcmread(BytesIO(data), stop_before_pixels=True).SOPInstanceUID))


def _stored(folder: Path, batch_id: str, data: bytes) -> StoredObject:
    key, sha256, header = _key(data), hashlib.sha256(data).hexdigest(), read_header(data)
    path = folder / f"{key}-{sha256[:8]}.dcm"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return StoredObject(
        object_key=key_of("deid", key),
        storage_uri=path_to_uri(path),
        source_name="research",
        sha256=sha256,
        size=len(data),
        pixel_data_offset=header.pixel_offset,
        header_json=header.json,
        has_pixel=header.has_pixel,
        transfer_syntax_uid=header.transfer_syntax_uid,
        arrival_batch=batch_id,
        row_version=f"{batch_id}/{key}",
        role="DEIDENTIFIED",
    )


def _proof(stored: StoredObject, key: str, batch_id: str) -> dict[str, object]:
    return {
        "instance_key": key,
        "profile_id": "test",
        "profile_version": "1",
        "profile_digest": "test",
        "engine_version": "test",
        "source_token": stored.sha256,
        "actions": "{}",
        "residual_hits": 0,
        "content_sha256": stored.sha256,
        "arrival_batch": batch_id,
        "row_version": stored.row_version,
    }
