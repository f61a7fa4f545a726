"""What is released is as valid DICOM as its source: no new error of dciodvfy, no Type 1 attribute lost or emptied."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from imaging_pipeline.deid import element_values
from imaging_pipeline.deid.engine import Deidentifier
from imaging_pipeline.deid.profile import load_profile
from imaging_pipeline.deid.reading import quiet, read
from imaging_pipeline.errors import PoisonInput
from imaging_pipeline_tests.deid.corpus import keys
from imaging_pipeline_tests.deid.planted import headers, reports
from imaging_pipeline_tests.deid.planted.patients import ZWYNT
from imaging_pipeline_tests.deid.validity import errors_of, with_value, without_values

FOLDER = Path(pydicom.__file__).parent / "data"
PROFILES = ("basic", "research", "limited")
MOST_NEW_ERRORS = 0.01
UNREADABLE = "Error - Dicom dataset read failed"
"""A truncated source: dciodvfy gives up before it judges it, so there is nothing to compare with."""

needs_dciodvfy = pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")


def _sources(profile: str) -> Iterator[tuple[str, bytes]]:
    """pydicom's files and planted objects; without pixels where text in them is read, which takes long."""
    for path in sorted(FOLDER.rglob("*.dcm")):
        if path.stat().st_size <= 100_000:
            data = path.read_bytes()
            with quiet():
                ds = dcmread(BytesIO(data), force=True)
                has_pixels = "PixelData" in ds
            if profile == "basic" or not has_pixels:
                yield path.name, data
    for planted in (
        headers.references(ZWYNT),
        reports.report(ZWYNT),
        reports.structure_set(ZWYNT),
        reports.waveform(ZWYNT),
    ):
        yield planted.name, planted.data


def _released(profile: str) -> Iterator[tuple[str, bytes, bytes]]:
    engine = Deidentifier(load_profile(profile), keys())
    for name, data in _sources(profile):
        try:
            yield name, data, engine.deidentify(data, patient_domain="north").data
        except PoisonInput:
            continue


def _has_sequence(ds: Dataset, path: list[str]) -> bool:
    """Whether an item is left in which the attribute should be: a sequence that is removed goes with all in it."""
    return not path or any(_has_sequence(item, path[1:]) for item in ds.get(path[0]) or ())


@needs_dciodvfy
@pytest.mark.parametrize("profile", PROFILES)
def test_hardly_a_released_file_has_an_error_that_its_source_did_not_have(profile: str, tmp_path: Path) -> None:
    source, target, written, worse = tmp_path / "source.dcm", tmp_path / "target.dcm", 0, {}
    for name, data, made in _released(profile):
        source.write_bytes(data)
        target.write_bytes(made)
        before = errors_of(source)
        if UNREADABLE in before:
            continue
        written += 1
        new = errors_of(target) - before
        if new:
            worse[name] = sorted(new)
    assert written >= 5
    assert len(worse) <= MOST_NEW_ERRORS * written, worse


@pytest.mark.parametrize("profile", PROFILES)
def test_what_must_have_a_value_and_had_one_has_one(profile: str) -> None:
    lost = {}
    for name, data, made in _released(profile):
        with quiet():
            before, after = read(data), dcmread(BytesIO(made))
            gone = with_value(before, before.SOPClassUID) - with_value(after, after.SOPClassUID)
            gone = {path for path in gone if _has_sequence(after, path.split(".")[:-1])}
        if gone:
            lost[name] = sorted(gone)
    assert not lost


def test_a_content_item_keeps_its_type_where_the_patient_is_called_the_same() -> None:
    planted = reports.report(ZWYNT)
    with quiet():
        ds = dcmread(BytesIO(planted.data))
    ds.PatientName = "Text^Contains"
    buffer = BytesIO()
    ds.save_as(buffer)
    made = Deidentifier(load_profile("research"), keys()).deidentify(buffer.getvalue(), patient_domain="north")
    kinds = {item.ValueType for item in dcmread(BytesIO(made.data)).ContentSequence}
    assert "TEXT" in kinds
    assert "DEIDENTIFIED" not in kinds


def test_a_palette_that_has_each_byte_twice_hides_no_text_but_a_long_word_does() -> None:
    assert not element_values.hides_text(bytes.fromhex("8080 7979 5959 4141 7a7a 0000"))
    assert element_values.hides_text(b"Ferrowick")
    assert element_values.hides_text(b"".join(bytes([letter] * 2) for letter in b"Ferrowick"))


def test_messages_lose_their_values_and_nothing_else() -> None:
    other = "Error - Unrecognized enumerated value <{}> for value 1 of attribute <{}>"
    assert without_values(other.format("A", "Modality")) == without_values(other.format("B", "Modality"))
    assert without_values(other.format("A", "Modality")) != without_values(other.format("A", "Value Type"))
    missing = "Error - Missing attribute Type 1 Required Element=<Modality> Module=<GeneralSeries>"
    assert without_values(missing) == missing
    listed = "Error - Referenced SOP Instance is not listed but have IMAGE ReferencedSOPInstanceUID {}"
    assert without_values(listed.format("0")) == without_values(listed.format("2.25.2108"))
