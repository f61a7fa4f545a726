"""A folder in, a folder out: what is in it, what is not, and what a kill leaves."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from pydicom import dcmread

from imaging_pipeline.deid import folder as folder_module
from imaging_pipeline.deid import staging as staging_module
from imaging_pipeline.deid.evidence import Evidence
from imaging_pipeline.deid.folder import FolderReleaser, Work, run_folder
from imaging_pipeline.deid.inputs import list_inputs
from imaging_pipeline.deid.outcomes import Verdict
from imaging_pipeline.deid.profile import load_profile
from imaging_pipeline.deid.staging import Staging
from imaging_pipeline.deid.vault import Vault
from imaging_pipeline.errors import ConfigurationError, Reason
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline_tests.deid.corpus import NAME, PATIENT_ID, ROOT, chest_film, encode, keys

SECRETS = ("zwyntharquist", "7731945", "oberon", "acc992817", ROOT)


def film(number: int, **attributes: object) -> bytes:
    return encode(chest_film(**{"SOPInstanceUID": f"{ROOT}.3.{number}"} | attributes))


def release(
    inputs: Path,
    out: Path,
    project: str = "chest",
    workers: int = 1,
    vault: Vault | None = None,
    profile: Path | str | None = None,
) -> Evidence:
    releaser = FolderReleaser(load_profile(profile), keys(project))
    return run_folder(str(inputs), out, releaser, patient_domain="north", workers=workers, vault=vault)


def counts(evidence: Evidence) -> tuple[int, int, int, int]:
    found, released, held, failed = (evidence.count(name) for name in ("in", "released", "held", "failed"))
    return found, released, held, failed


def tree(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def dicom_files(out: Path) -> list[Path]:
    return sorted(out.rglob("*.dcm"))


def reasons(evidence: Evidence) -> dict[object, object]:
    return {row["reason"]: row["objects"] for row in evidence.tables["reasons"]}


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Three films, one of them in a zip, and one of each kind of what is not released."""
    folder = tmp_path / "in" / NAME
    folder.mkdir(parents=True)
    (folder / f"{PATIENT_ID}.dcm").write_bytes(film(1))
    (folder / "no suffix").write_bytes(film(2))
    (folder / "burned in.dcm").write_bytes(film(3, BurnedInAnnotation="YES"))
    (folder / "notes.txt").write_text("Zwyntharquist came at noon")
    (folder / "empty.dcm").write_bytes(b"")
    (folder / "broken.zip").write_bytes(b"PK no archive")
    (folder / ".hidden.dcm").write_bytes(film(9))
    with zipfile.ZipFile(folder / "studies.zip", "w") as archive:
        archive.writestr(f"{NAME}/one.dcm", film(4))
        archive.writestr("readme", "no DICOM")
    return folder.parent


def test_every_object_is_released_held_or_failed_and_the_evidence_says_which(inputs: Path, tmp_path: Path) -> None:
    evidence = release(inputs, tmp_path / "out")
    assert counts(evidence) == (8, 3, 1, 4)
    assert evidence.is_closed
    assert len(dicom_files(tmp_path / "out")) == 3
    assert reasons(evidence) == {"not_dicom": 2, "pixel_review_required": 1, "empty": 1, "archive_unreadable": 1}
    assert evidence.count("passed over: hidden") == 1
    assert {row["verdict"] for row in evidence.tables["held"]} == {"HELD", "FAILED"}


def test_files_are_where_and_what_the_evidence_says(inputs: Path, tmp_path: Path) -> None:
    evidence = release(inputs, tmp_path / "out")
    listed = {str(row["file"]): row for row in evidence.tables["files"]}
    found = tree(tmp_path / "out")
    assert listed.keys() == {name for name in found if name.endswith(".dcm")}
    for name, row in listed.items():
        assert row["sha256"] == found[name]
        ds = dcmread(tmp_path / "out" / name)
        assert row["sop_instance_uid"] == ds.SOPInstanceUID
        assert Path(name).parts[:3] == (ds.PatientID, ds.StudyInstanceUID, ds.SeriesInstanceUID)


def test_nothing_in_the_output_names_an_original_not_even_a_file_name(inputs: Path, tmp_path: Path) -> None:
    release(inputs, tmp_path / "out")
    for path in (tmp_path / "out").rglob("*"):
        names = str(path.relative_to(tmp_path)).lower()
        content = path.read_bytes().lower() if path.is_file() else b""
        for secret in (*SECRETS, "notes", "studies.zip", "burned in.dcm"):
            assert secret not in names
            assert secret.encode() not in content, (path.name, secret)


def test_two_machines_make_the_same_bytes(inputs: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "in"
    shutil.copytree(inputs, elsewhere, copy_function=shutil.copyfile)  # other times, other place
    release(inputs, tmp_path / "out")
    release(elsewhere, tmp_path / "other" / "out", workers=2)
    assert tree(tmp_path / "out") == tree(tmp_path / "other" / "out")


def test_another_project_has_no_file_name_or_digest_in_common(inputs: Path, tmp_path: Path) -> None:
    release(inputs, tmp_path / "out")
    release(inputs, tmp_path / "other", project="lung")
    first, second = ({part for name in tree(tmp_path / out) for part in Path(name).parts} for out in ("out", "other"))
    assert not any(part.startswith(("2.25.", "P")) for part in first & second)
    tokens = [
        {line.split(",")[0] for line in (tmp_path / out / "evidence" / "held.csv").open()} for out in ("out", "other")
    ]
    assert tokens[0] & tokens[1] == {"object"}


def test_two_contents_of_one_uid_are_held_and_copies_count_once(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, content in {"a": film(1), "b": film(1, ViewPosition="AP"), "c": film(2), "d": film(2)}.items():
        (folder / name).write_bytes(content)
    evidence = release(folder, tmp_path / "out")
    assert counts(evidence) == (4, 2, 2, 0)
    assert reasons(evidence) == {"conflict_content": 2, "duplicate_content": 1}
    assert evidence.count("files") == len(dicom_files(tmp_path / "out")) == 1


def test_a_number_of_another_patient_of_the_run_holds_the_object(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    other = {"PatientID": "B-222222", "PatientName": "Abendroth^Max", "StudyInstanceUID": "1.2.9"}
    (folder / "a").write_bytes(film(1, Manufacturer="B-222222"))
    (folder / "b").write_bytes(film(2, **other))
    evidence = release(folder, tmp_path / "out")
    assert reasons(evidence) == {"residual_identifier": 1}
    (kept,) = dicom_files(tmp_path / "out")
    assert b"222222" not in kept.read_bytes()


def test_a_dicomdir_is_held_since_it_names_patients(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    ds = chest_film(SOPClassUID="1.2.840.10008.1.3.10", SOPInstanceUID="1.2.3")
    (folder / "DICOMDIR").write_bytes(encode(ds))
    evidence = release(folder, tmp_path / "out")
    assert counts(evidence) == (1, 0, 1, 0)


def test_an_object_that_changes_after_its_header_was_read_has_failed(inputs: Path, tmp_path: Path) -> None:
    listed = list_inputs(str(inputs), None, keys(), ObjectReader(), "north")
    releaser = FolderReleaser(load_profile(), keys())
    made = releaser.release(tmp_path, [Work(listed.items[0], "another digest", frozenset(), "key")])
    ((_, outcome),) = made.outcomes
    assert (outcome.verdict, outcome.reason) == (Verdict.FAILED, Reason.CHANGED_WHILE_READ)
    assert not dicom_files(tmp_path / "out")


def test_what_is_stopped_leaves_earlier_output_and_goes_on_where_it_was(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    release(inputs, out)
    before = tree(out)
    (inputs / "late.dcm").write_bytes(film(7))
    record = Staging.record
    calls: list[int] = []

    def stops(self: Staging, outcomes: Iterable[object]) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        record(self, outcomes)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(folder_module, "OBJECTS_PER_CHUNK", 1)
        patched.setattr(Staging, "record", stops)
        with pytest.raises(KeyboardInterrupt):
            release(inputs, out)
    assert tree(out) == before
    (partial,) = tmp_path.glob(".out.partial")
    inodes = {path.name: path.stat().st_ino for path in dicom_files(partial)}
    evidence = release(inputs, out)
    assert counts(evidence) == (9, 4, 1, 4)
    again = {path.name: path.stat().st_ino for path in dicom_files(out)}
    kept = [name for name in inodes if again[name] == inodes[name]]
    assert len(kept) >= 2
    assert not list(tmp_path.glob(".out.*"))
    release(inputs, tmp_path / "at once")
    assert tree(out) == tree(tmp_path / "at once")


def test_what_was_released_before_a_stop_and_is_gone_from_the_input_is_not_in_the_output(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stops(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(folder_module, "write_tables", stops)
        with pytest.raises(KeyboardInterrupt):
            release(inputs, tmp_path / "out")
    (partial,) = tmp_path.glob(".out.partial")
    assert len(dicom_files(partial)) == 3
    (inputs / NAME / f"{PATIENT_ID}.dcm").unlink()
    (dicom_files(partial)[0].parent / ".cut.dcm.1.part").write_bytes(b"part")
    evidence = release(inputs, tmp_path / "out")
    assert evidence.count("files") == len(dicom_files(tmp_path / "out")) == 2
    listed = {str(row["file"]) for row in evidence.tables["files"]}
    outside = {name for name in tree(tmp_path / "out") if not name.startswith("evidence/")}
    assert outside == listed


def test_a_stopped_run_of_another_profile_or_input_is_not_gone_on_with(inputs: Path, tmp_path: Path) -> None:
    partial = tmp_path / ".out.partial"
    (partial / "old").mkdir(parents=True)
    (partial / "old" / "stale.dcm").write_bytes(b"stale")
    (partial / ".journal").write_text('{"run": {"project": "chest"}}\n{"cut off')
    release(inputs, tmp_path / "out")
    assert not (tmp_path / "out" / "old").exists()
    assert len(dicom_files(tmp_path / "out")) == 3


def test_a_kill_between_the_two_renames_is_mended(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    release(inputs, out)
    before = tree(out)
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if self.name == ".out.partial":
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            release(inputs, out)
    assert not out.exists()
    staging_module.refuse_foreign(out, {"project": "chest", "key_id": keys().key_id})
    assert tree(out) == before
    release(inputs, out)
    assert tree(out) == before
    assert not list(tmp_path.glob(".out.*"))


@pytest.mark.parametrize("what", ["other files", "another project", "a file"])
def test_an_output_folder_that_holds_something_else_is_left_alone(inputs: Path, tmp_path: Path, what: str) -> None:
    out = tmp_path / "out"
    if what == "other files":
        out.mkdir()
        (out / "thesis.txt").write_text("mine")
    elif what == "a file":
        out.write_text("mine")
    else:
        release(inputs, out, project="lung")
    before = tree(tmp_path)
    with pytest.raises(ConfigurationError, match="output folder"):
        release(inputs, out)
    assert tree(tmp_path) == before


def test_input_and_output_must_lie_apart(inputs: Path, tmp_path: Path) -> None:
    for place, out in ((inputs, inputs / "out"), (inputs, inputs), (inputs, tmp_path)):
        with pytest.raises(ConfigurationError, match=r"lie apart|output folder"):
            release(place, out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match="nothing to de-identify"):
        release(tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_runs_do_not_write_one_output_at_once(inputs: Path, tmp_path: Path) -> None:
    run = {"project": "chest", "key_id": keys().key_id}
    with (
        staging_module.staged(tmp_path / "out", run),
        pytest.raises(ConfigurationError, match="another run is writing"),
    ):
        release(inputs, tmp_path / "out")


def test_the_vault_alone_can_go_back(inputs: Path, tmp_path: Path) -> None:
    vault = Vault(tmp_path / "vault" / "vault.sqlite", keys())
    release(inputs, tmp_path / "out", vault=vault)
    ds = dcmread(dicom_files(tmp_path / "out")[0])
    assert vault.original("PATIENT", ds.PatientID) == f"north\x1f{PATIENT_ID}"
    assert str(vault.original("UID", ds.SOPInstanceUID)).startswith(f"{ROOT}.3.")


def test_a_link_is_told_and_not_followed(inputs: Path, tmp_path: Path) -> None:
    (inputs / "link.dcm").symlink_to(inputs / "notes.txt")
    evidence = release(inputs, tmp_path / "out")
    assert evidence.count("passed over: links") == 1
    assert counts(evidence) == (8, 3, 1, 4)


def test_a_name_in_one_object_is_found_in_the_others_of_the_patient(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a").write_bytes(film(1, PatientName="Grimmelshaus^Oda", StudyInstanceUID="1.2.9"))
    (folder / "b").write_bytes(film(2, Manufacturer="Grimmelshaus Imaging"))
    release(folder, tmp_path / "out")
    assert dicom_files(tmp_path / "out")
    for path in dicom_files(tmp_path / "out"):
        assert b"grimmelshaus" not in path.read_bytes().lower()


@pytest.fixture
def ff1_profile(tmp_path: Path) -> Path:
    path = tmp_path / "ff1.yaml"
    path.write_text("extends: basic\nprofile: ff1\nidentifiers: ff1\n")
    return path


def test_format_preserving_pseudonyms_can_be_reversed_and_name_safe_folders(tmp_path: Path, ff1_profile: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    originals = {"MRN-7731945", "../../773195", "12345678"}
    for number, original in enumerate(sorted(originals)):
        more = {"PatientID": original, "StudyInstanceUID": f"1.2.{number}", "SeriesInstanceUID": f"1.2.{number}.1"}
        (folder / str(number)).write_bytes(film(number, **more))
    evidence = release(folder, tmp_path / "out", profile=ff1_profile)
    files = dicom_files(tmp_path / "out")
    assert len(files) == evidence.count("released") == 3
    pseudonyms = {str(dcmread(path).PatientID) for path in files}
    assert {keys().original_patient_id("north", pseudonym) for pseudonym in pseudonyms} == originals
    assert not originals & pseudonyms
    assert all(len(path.relative_to(tmp_path / "out").parts) == 4 for path in files)


def test_two_patients_who_would_get_one_pseudonym_are_held(
    tmp_path: Path, ff1_profile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in (1, 2):
        more = {"PatientID": f"100000{number}", "StudyInstanceUID": f"1.2.{number}"}
        (folder / str(number)).write_bytes(film(number, **more))
    monkeypatch.setattr(type(keys()), "patient_id", lambda *_, **__: "1234567")
    evidence = release(folder, tmp_path / "out", profile=ff1_profile)
    assert counts(evidence) == (2, 0, 2, 0)
    assert not dicom_files(tmp_path / "out")
