"""A folder whose file names, folders and zip members name patients: nothing of it in any file of the output."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from imaging_pipeline.deid.evidence import Evidence
from imaging_pipeline.deid.folder import FolderReleaser, run_folder
from imaging_pipeline.deid.profile import load_profile
from imaging_pipeline_tests.deid.corpus import keys
from imaging_pipeline_tests.deid.planted.collection import place_objects
from imaging_pipeline_tests.deid.planted.headers import planter_of, radiograph
from imaging_pipeline_tests.deid.planted.judge import judge
from imaging_pipeline_tests.deid.planted.objects import uid
from imaging_pipeline_tests.deid.planted.patients import UMLAUT, ZWYNT, Patient
from imaging_pipeline_tests.deid.planted.plants import Kind, Planted, encode
from imaging_pipeline_tests.deid.planted.reports import document, raw_data
from imaging_pipeline_tests.deid.planted.search import Output, compact, quietly

OLD_NAME = "Ferrowickson"
OLD_NUMBER = "X-5519927"


def _elsewhere(patient: Patient) -> list[Planted]:
    """Two objects of one patient: the former name and number in one header are free text in the other."""
    first = planter_of(patient)
    first.plant(Kind.NAME, "OtherPatientNames", f"{OLD_NAME}^Beatrix", OLD_NAME)
    first.plant(Kind.NUMBER, "OtherPatientIDs", OLD_NUMBER)
    first.uid("SOPInstanceUID", uid(1, 1, 61))
    second = planter_of(patient)
    second.plant(Kind.NAME, "SeriesDescription", f"thorax {OLD_NAME.lower()}", OLD_NAME)
    second.plant(Kind.NUMBER, "SoftwareVersions", f"1.1 {OLD_NUMBER}", OLD_NUMBER)
    second.uid("SOPInstanceUID", uid(1, 1, 62))
    return [first.done("first"), second.done("second")]


def _numbered(planted: Planted, number: int) -> Planted:
    """The object under an instance UID of its own."""
    ds = quietly(planted.data)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid(1, 1, number)
    return replace(planted, data=encode(ds))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Evidence, list[Planted]]:
    """Objects in folders, files and a zip that are named after their patients, released for research."""
    home = tmp_path_factory.mktemp("planted")
    source = home / "in" / f"{ZWYNT.family}_{ZWYNT.patient_id}"
    source.mkdir(parents=True)
    umlaut = planter_of(UMLAUT)
    umlaut.uid("SOPInstanceUID", uid(1, 1, 63))
    others = (place_objects()[3], raw_data(ZWYNT), document(ZWYNT, "pdf"))
    corpus = [radiograph(ZWYNT), *_elsewhere(ZWYNT), umlaut.done("umlaut")]
    corpus += [_numbered(planted, 70 + number) for number, planted in enumerate(others)]
    for number, planted in enumerate(corpus[:3]):
        (source / f"{ZWYNT.name} born {ZWYNT.birth_date} {number}.dcm").write_bytes(planted.data)
    (source / f"letter to {ZWYNT.family}.txt").write_text(f"Dear {ZWYNT.given} {ZWYNT.family}")
    (source / f"{ZWYNT.family}.broken.dcm").write_bytes(bytes(128) + b"DICM" + ZWYNT.name.encode() * 20)
    with zipfile.ZipFile(source / f"{UMLAUT.family}.zip", "w") as archive:
        archive.comment = UMLAUT.name.encode()
        for planted in corpus[3:]:
            archive.writestr(f"{planted.patient.family}/{planted.patient.patient_id} {planted.name}", planted.data)
    releaser = FolderReleaser(load_profile("research"), keys())
    evidence = run_folder(str(home / "in"), home / "out", releaser, patient_domain="north", workers=1)
    return home / "out", evidence, corpus


def test_no_file_of_the_output_holds_anything_planted(made: tuple[Path, Evidence, list[Planted]]) -> None:
    out, _, corpus = made
    needles = {needle for planted in corpus for plant in planted.plants for needle in plant.needles}
    needles |= {ZWYNT.family, ZWYNT.patient_id, UMLAUT.family, OLD_NAME, OLD_NUMBER}
    files = [path for path in out.rglob("*") if path.is_file()]
    assert any(path.suffix == ".dcm" for path in files)
    assert any(path.suffix in (".csv", ".json", ".html") for path in files)
    for path in files:
        output = Output(path.read_bytes())
        assert [needle for needle in needles if output.has(needle)] == [], path.suffix


def test_no_name_in_the_output_names_anybody(made: tuple[Path, Evidence, list[Planted]]) -> None:
    out, _, corpus = made
    names = compact(" ".join(str(path.relative_to(out)) for path in out.rglob("*")))
    for planted in corpus:
        patient = planted.patient
        for text in (patient.family, patient.given, patient.patient_id, patient.birth_date, patient.accession):
            assert compact(text) not in names
        for path, (old, _) in judge(planted, planted.data).mapped.items():
            assert compact(old) not in names, path


def test_the_counts_of_the_evidence_close(made: tuple[Path, Evidence, list[Planted]]) -> None:
    _, evidence, corpus = made
    found, released, held, failed = (evidence.count(name) for name in ("in", "released", "held", "failed"))
    assert found == released + held + failed
    assert found == len(corpus) + 2
    assert released >= 5
    assert held + failed >= 3
