"""The engine over every file pydicom ships for tests: released and readable, or refused with a reason."""

from __future__ import annotations

from collections import Counter
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom import dcmread

from imaging_pipeline.deid.reading import count, elements, file_meta, quiet, read, values
from imaging_pipeline.deid.screen import Kind, identifiers_of
from imaging_pipeline.errors import PoisonInput
from imaging_pipeline_tests.deid.corpus import deidentifier

FOLDER = Path(pydicom.__file__).parent / "data"
MAX_BYTES = 3_000_000


def _files() -> list[Path]:
    return sorted(path for path in FOLDER.rglob("*") if path.is_file() and path.stat().st_size < MAX_BYTES)


def test_every_file_is_released_and_readable_or_refused() -> None:
    engine, outcomes = deidentifier(), Counter[str]()
    for path in _files():
        content = path.read_bytes()
        try:
            result = engine.deidentify(content, patient_domain="pydicom")
        except PoisonInput as refusal:
            outcomes[refusal.reason] += 1
            continue
        outcomes["released"] += 1
        assert engine.deidentify(content, patient_domain="pydicom").data == result.data
        with quiet():
            source, out = read(content), dcmread(BytesIO(result.data))
            assert sum(result.actions.values()) == count(source) + count(file_meta(source)), path.name
            pixels, kept = source.get("PixelData") or b"", out.get("PixelData") or b""
            assert kept[: len(pixels)] == pixels
            assert len(kept) - len(pixels) in (0, 1)
            texts = {text for _, _, _, _, elem in elements(out) for text in values(elem)}
            originals = {found.text for found in identifiers_of(source) if found.kind in (Kind.UID, Kind.NUMBER)}
            assert texts.isdisjoint(originals), path.name
    assert outcomes["released"] >= 40
    assert outcomes["residual_identifier"] == 0
