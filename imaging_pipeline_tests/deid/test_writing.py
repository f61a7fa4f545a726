"""The writer gives the bytes pydicom gives."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from imaging_pipeline.deid import engine, writing
from imaging_pipeline.deid.profile import load_profile
from imaging_pipeline.errors import PoisonInput
from imaging_pipeline_tests.deid.corpus import chest_film, encode, keys
from imaging_pipeline_tests.deid.test_options import _private_film, _report, run

FOLDER = Path(pydicom.__file__).parent / "data" / "test_files"


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether both writers agreed, for each object written during the test."""
    found: list[bool] = []

    def both(out: pydicom.Dataset, sop_class: str, syntax: str) -> bytes:
        ours = writing.write(out, sop_class, syntax)
        found.append(ours == writing.write_with_pydicom(out, syntax))
        return ours

    monkeypatch.setattr(engine, "write", both)
    return found


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_a_film_is_written_as_pydicom_writes_it(compared: list[bool], syntax: str) -> None:
    engine.Deidentifier(load_profile(), keys()).deidentify(encode(chest_film(), syntax), patient_domain="n")
    assert compared == [True]


def test_reports_and_private_elements_are_written_as_pydicom_writes_them(compared: list[bool]) -> None:
    run(_report(), load_profile("research"))
    run(_private_film(), load_profile("research"))
    assert compared == [True, True]


def test_real_files_are_written_as_pydicom_writes_them(compared: list[bool]) -> None:
    deidentifier = engine.Deidentifier(load_profile(), keys())
    for path in sorted(FOLDER.glob("*.dcm")):
        if path.stat().st_size < 300_000:
            try:
                deidentifier.deidentify(path.read_bytes(), patient_domain="n")
            except PoisonInput:
                continue
    assert len(compared) >= 10
    assert all(compared)
