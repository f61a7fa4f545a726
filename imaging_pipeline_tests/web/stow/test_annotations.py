"""Storing into the research zone: annotations of released studies, under the name of who sent them; nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from highdicom.content import AlgorithmIdentificationSequence
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import DeflatedExplicitVRLittleEndian, generate_uid

from imaging_pipeline.deid import release
from imaging_pipeline.deid.clearance import CHECKS, Clearance
from imaging_pipeline.deid.release import ReleaseRefused
from imaging_pipeline.deid.targets import deleted_of_batch
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.made_objects import add_objects
from imaging_pipeline.metadata.versions import VersionPolicy
from imaging_pipeline.objects.folder import uri_to_path
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.pneumonia.annotation_labels import annotation_state
from imaging_pipeline.web.stow.annotations import AnnotationReceiver, Settled, settle_annotations
from imaging_pipeline.web.zone import Zone, ZoneName
from imaging_pipeline_tests.deid.corpus import NAME, PATIENT_ID, ROOT, chest_film, encode, keys
from imaging_pipeline_tests.deid.test_release import FIRST, SECOND, Zones
from imaging_pipeline_tests.metadata.headers import memory_lake
from imaging_pipeline_tests.web.stow.service import Service, body_of, failures, stored

SR = "1.2.840.10008.5.1.4.1.1.88.33"
PLANTED = "KRAUTSCHNABEL^PLANTED"


class Research:
    """A research zone with one released film, and a service to send annotations of it to."""

    def __init__(self, folder: Path, identified: Lake, research: Lake) -> None:
        self.zones, self.lake, self.folder = Zones(folder, identified, research), research, folder / "annotations"
        self.zones.take_in(FIRST, film={})
        self.zone = Zone(
            ZoneName.RESEARCH, "deid", lambda: nullcontext(research), lambda: nullcontext(research), ObjectReader(),
            folder, self.folder, "chest", None,
        )  # fmt: skip
        self.service = Service(folder, "research", AnnotationReceiver(self.zone, 0))

    def film(self) -> Dataset:
        (path,) = self.zones.files()
        return pydicom.dcmread(path)

    def kept(self) -> list[Dataset]:
        """The annotations among the files of the lake."""
        rows = self.lake.rows("SELECT storage_uri FROM deid.dicom_file_location WHERE role = 'DERIVED' ORDER BY ALL")
        return [pydicom.dcmread(uri_to_path(str(uri))) for (uri,) in rows]

    def files(self) -> int:
        return sum(path.is_file() for path in self.folder.rglob("*"))

    def settle(self, *batches: str) -> Settled:
        """As the asset does after some batches were released or withdrawn, also where one was refused."""
        for batch_id in batches or (FIRST,):
            deleted = deleted_of_batch(self.zones.identified, keys(), batch_id)
            settled = settle_annotations(self.lake, self.folder, deleted)
        return settled

    def copies(self) -> list[Path]:
        return sorted((self.folder / "copies").iterdir())

    def forget(self) -> None:
        """Take back all annotations."""
        for key, batch_id in self.lake.rows("SELECT annotation_key, arrival_batch FROM gold.annotation"):
            add_objects(self.lake, "deid", str(batch_id), f"annotation-{str(key)[:12]}", [])
        with self.lake.transaction():
            self.lake.connection.execute("DELETE FROM gold.annotation")
        for path in self.folder.rglob("*.dcm"):
            path.unlink()


@pytest.fixture(scope="module")
def zone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Research]:
    with memory_lake("identified") as identified, memory_lake("research") as lake:
        yield Research(tmp_path_factory.mktemp("research"), identified, lake)


@pytest.fixture
def research(zone: Research) -> Iterator[Research]:
    yield zone
    zone.forget()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Research]:
    """A zone of this test alone, whose film may come and go."""
    with memory_lake("identified") as identified, memory_lake("research") as lake:
        yield Research(tmp_path, identified, lake)


def report_on(film: Dataset, **changes: object) -> Dataset:
    """A report with one measurement of a film, made by nobody, as a viewer makes it."""
    ds = Dataset()
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate"):
        if keyword in film:
            setattr(ds, keyword, film[keyword].value)
    ds.SOPClassUID, ds.Modality = SR, "SR"
    ds.SOPInstanceUID, ds.SeriesInstanceUID = "2.25.1001", "2.25.1002"
    ds.InstitutionName, ds.OperatorsName, ds.ReferringPhysicianName = PLANTED, PLANTED, PLANTED
    block = ds.private_block(0x0011, "A VIEWER", create=True)
    block.add_new(1, "LO", PLANTED)
    observer = item("PNAME", "HAS OBS CONTEXT")
    observer.PersonName = "unknown^unknown"
    image = item("IMAGE", "INFERRED FROM")
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = film.SOPClassUID, film.SOPInstanceUID
    image.ReferencedSOPSequence = [reference]
    words = item("TEXT", "CONTAINS")
    words.TextValue = "opacity in the right lower zone"
    ds.ValueType, ds.ContinuityOfContent, ds.ContentSequence = "CONTAINER", "SEPARATE", [observer, image, words]
    ds.CompletionFlag, ds.VerificationFlag, ds.ContentDate, ds.ContentTime = "COMPLETE", "UNVERIFIED", "20260301", "10"
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    return ds


def item(value_type: str, relation: str) -> Dataset:
    found = Dataset()
    found.ValueType, found.RelationshipType = value_type, relation
    return found


def test_a_report_becomes_rows_of_its_study_under_the_name_of_who_sent_it(research: Research) -> None:
    status, answer = research.service.post(body_of(encode(report_on(research.film()))))
    assert (status, stored(answer)) == (202, ["2.25.1001"])
    assert answer["00081199"]["Value"][0]["00081196"]["Value"] == [0xB000]
    (kept,) = research.kept()
    assert kept.AuthorObserverSequence[0].PersonName == kept.ContentSequence[0].PersonName == "ann"
    assert kept.ContentSequence[2].TextValue == "opacity in the right lower zone"
    assert research.lake.rows("SELECT kind, user_name FROM gold.annotation") == [("SR", "ann")]
    assert research.lake.rows(
        "SELECT text_value FROM deid.dicom_sr_content_item WHERE text_value IS NOT NULL AND value_type = 'TEXT'"
    ) == [("opacity in the right lower zone",)]
    assert research.lake.rows("SELECT count(DISTINCT study_key) FROM deid.dicom_study") == [(1,)]


def test_what_could_bring_an_identifier_in_is_set_by_the_service(research: Research) -> None:
    film = research.film()
    planted = {
        "PatientName": PLANTED, "PatientBirthDate": "19610412", "OtherPatientNames": PLANTED, "AccessionNumber": "A1",
        "StudyDescription": PLANTED, "PatientComments": PLANTED, "StationName": "PLANTED",
        "PhysiciansOfRecord": PLANTED, "PerformingPhysicianName": PLANTED, "StudyID": "PLANTED",
    }  # fmt: skip
    status, _ = research.service.post(body_of(encode(report_on(film, **planted))))
    assert status == 202
    (kept,) = research.kept()
    assert "PLANTED" not in str(kept)
    for keyword in ("PatientName", "PatientBirthDate", "AccessionNumber", "StudyDate", "StudyDescription"):
        assert kept.get(keyword) == film.get(keyword), keyword
    assert not any(element.tag.is_private for element in kept.iterall())


def test_a_segmentation_made_by_a_library_comes_in_whole(research: Research) -> None:
    film = research.film()
    mask = np.zeros((1, film.Rows, film.Columns), dtype=np.uint8)
    mask[0, 1:3, 1:3] = 1
    algorithm = AlgorithmIdentificationSequence(name="hand", version="1", family=codes.DCM.ArtificialIntelligence)
    segment = SegmentDescription(
        1, "lung", codes.SCT.Organ, codes.SCT.Lung, SegmentAlgorithmTypeValues.SEMIAUTOMATIC, algorithm
    )
    for keyword in ("PatientBirthDate", "AccessionNumber", "StudyID", "StudyTime", "ReferringPhysicianName"):
        if keyword not in film:
            setattr(film, keyword, None)
    seg = Segmentation(
        [film], mask, SegmentationTypeValues.BINARY, [segment], generate_uid(), 1, generate_uid(), 1, "Maker", "Model",
        "1", "0", content_creator_name="Somebody^Else",
    )  # fmt: skip
    seg.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    status, answer = research.service.post(body_of(encode(seg)))
    assert (status, stored(answer)) == (202, [seg.SOPInstanceUID])
    (kept,) = research.kept()
    assert kept.ContentCreatorName == "ann"
    assert np.array_equal(kept.pixel_array, mask[0])
    assert research.lake.rows("SELECT segment_label FROM deid.dicom_segmentation_metadata") == [("lung",)]


def test_originals_and_strangers_are_refused(research: Research) -> None:
    film = research.film()
    original_study = report_on(film, StudyInstanceUID=f"{ROOT}.1")
    original_image = report_on(film)
    original_image.ContentSequence[1].ReferencedSOPSequence[0].ReferencedSOPInstanceUID = f"{ROOT}.3.1"
    no_reference = report_on(film, ContentSequence=[item("TEXT", "CONTAINS")])
    other_patient = report_on(film, PatientID=PATIENT_ID)
    in_series_of_images = report_on(film, SeriesInstanceUID=film.SeriesInstanceUID)
    uid_of_image = report_on(film, SOPInstanceUID=film.SOPInstanceUID)
    film.SOPInstanceUID = "2.25.5"
    deflated = encode(report_on(film), DeflatedExplicitVRLittleEndian)
    assert failures(research.service.post(body_of(deflated))[1]) == [0xC122]
    expected = {
        0x0112: [original_study, original_image, no_reference],
        0x0110: [other_patient, in_series_of_images, uid_of_image],
        0x0122: [chest_film(), film],
    }
    for failure, objects in expected.items():
        for ds in objects:
            status, answer = research.service.post(body_of(encode(ds)))
            assert (status, failures(answer)) == (409, [failure])
            assert NAME.partition("^")[0] not in str(answer)
    assert not research.kept()
    assert research.lake.rows("SELECT count(*) FROM gold.annotation") == [(0,)]
    assert research.files() == 0


def test_the_same_annotation_again_changes_nothing_and_another_under_its_uid_is_refused(research: Research) -> None:
    content = encode(report_on(research.film()))
    first, second = research.service.post(body_of(content)), research.service.post(body_of(content))
    assert first == second
    other = encode(report_on(research.film(), CompletionFlag="PARTIAL"))
    status, answer = research.service.post(body_of(other))
    assert (status, failures(answer)) == (409, [0x0111])
    assert len(research.kept()) == 1


def test_an_annotation_comes_back_with_what_its_image_says_now_of_patient_and_study(research: Research) -> None:
    (path,) = research.zones.files()
    film = research.film()
    film.StudyDescription = PLANTED  # a leak that was found later
    film.save_as(path)
    research.service.post(body_of(encode(report_on(research.film()))))
    assert research.kept()[0].StudyDescription == PLANTED
    film.StudyDescription = "CHEST"
    film.save_as(path)
    with research.lake.transaction():
        research.lake.connection.execute("DELETE FROM deid.made_object")
        research.lake.connection.execute("DELETE FROM deid.dicom_file_location WHERE role = 'DERIVED'")
    shutil.rmtree(research.folder / "objects")
    research.settle()
    assert research.kept()[0].StudyDescription == "CHEST"
    for copy in (research.folder / "copies", research.folder / "objects"):
        for file in copy.rglob("*.dcm"):
            assert PLANTED.encode() not in file.read_bytes()
    assert research.lake.rows("SELECT count(*) FROM gold.annotation") == [(1,)]


def test_a_study_that_is_not_shown_is_not_known_to_those_who_send(research: Research, tmp_path: Path) -> None:
    clearance = Clearance(tmp_path / "cleared")
    hidden = Service(tmp_path, "research", AnnotationReceiver(replace(research.zone, clearance=clearance), 0))
    report = encode(report_on(research.film()))
    status, answer = hidden.post(body_of(report))
    assert (status, failures(answer)) == (409, [0x0112])
    for check in CHECKS:
        clearance.judge(FIRST, check, passed=True, release="")
    assert hidden.post(body_of(report))[0] in {200, 202}


def test_an_annotation_comes_back_with_its_image_and_goes_with_it_for_good(research: Research) -> None:
    research.service.post(body_of(encode(report_on(research.film()))))
    before = research.kept()[0]
    with research.lake.transaction():  # as when a release is taken back to be made anew
        research.lake.connection.execute("DELETE FROM deid.made_object")
        research.lake.connection.execute("DELETE FROM deid.dicom_file_location WHERE role = 'DERIVED'")
    (research.folder / "objects").rename(research.folder / "gone")
    assert not research.kept()
    research.settle()
    assert research.kept() == [before]
    assert len(list((research.folder / "copies").iterdir())) == 1
    research.zones.vanish(FIRST)
    assert research.settle() == Settled(destroyed=1, hidden=0)
    assert not research.kept()
    assert research.lake.rows("SELECT count(*) FROM gold.annotation") == [(0,)]
    assert not list((research.folder / "copies").iterdir())


HOLDS = {
    "a newer version whose pixels a person must review": (VersionPolicy.KEEP_LAST, {"BurnedInAnnotation": "YES"}),
    "two contents of one UID": (VersionPolicy.KEEP_BOTH, {"ViewPosition": "AP"}),
}


@pytest.mark.parametrize(("policy", "other"), HOLDS.values(), ids=HOLDS)
def test_an_annotation_is_out_of_sight_while_its_image_is_held_and_comes_back_with_it(
    own: Research, policy: VersionPolicy, other: dict[str, object]
) -> None:
    own.service.post(body_of(encode(report_on(own.film()))))
    told = "SELECT * EXCLUDE (_loaded_at, arrival_batch) FROM gold.annotation"
    before, rows = own.kept(), own.lake.rows(told)
    state = annotation_state(own.lake)
    own.zones.take_in(SECOND, policy=policy, film=other)
    assert own.settle(SECOND, FIRST) == Settled(destroyed=0, hidden=1)
    assert not own.zones.files()
    assert not own.kept()
    assert not list((own.folder / "objects").rglob("*.dcm"))
    assert own.lake.rows("SELECT count(*) FROM deid.dicom_sr_content_item") == [(0,)]
    assert annotation_state(own.lake) != state
    assert len(own.copies()) == 1
    own.zones.vanish(SECOND, policy=policy)  # the image itself is there still, and is released in its place
    assert own.settle(SECOND) == Settled(destroyed=0, hidden=0)
    assert own.kept() == before
    assert own.lake.rows(told) == rows
    assert annotation_state(own.lake) == state
    assert len(own.copies()) == 1


def test_a_refused_run_hides_an_annotation_and_the_next_one_brings_it_back(
    own: Research, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.service.post(body_of(encode(report_on(own.film()))))
    words = own.kept()[0].ContentSequence
    with monkeypatch.context() as patched:
        patched.setattr(release, "count_leaks", lambda *_: {"dicom_study.study_description": 1})
        with pytest.raises(ReleaseRefused):
            own.zones.take_in(SECOND, film={"ViewPosition": "AP"})
    assert own.settle(SECOND) == Settled(destroyed=0, hidden=1)
    own.zones.release(SECOND)
    assert own.settle(SECOND) == Settled(destroyed=0, hidden=0)
    assert [kept.ContentSequence for kept in own.kept()] == [words]


def test_an_annotation_whose_image_is_deleted_while_it_is_held_goes_for_good(own: Research) -> None:
    own.service.post(body_of(encode(report_on(own.film()))))
    own.zones.take_in(SECOND, film={"BurnedInAnnotation": "YES"})
    assert own.settle(SECOND) == Settled(destroyed=0, hidden=1)
    own.zones.vanish(FIRST)  # the version that is held is there still
    assert own.settle(FIRST) == Settled(destroyed=0, hidden=1)
    own.zones.vanish(SECOND)
    assert own.settle(SECOND) == Settled(destroyed=1, hidden=0)
    assert own.lake.rows("SELECT count(*) FROM gold.annotation") == [(0,)]
    assert not own.copies()
    own.zones.vanish(SECOND, back=True)
    assert own.settle(SECOND) == Settled(destroyed=0, hidden=0)
    assert not own.kept()


def test_an_annotation_of_an_annotation_comes_and_goes_with_it(own: Research) -> None:
    film = own.film()
    first = report_on(film)
    own.service.post(body_of(encode(first)))
    for number in range(4):  # whichever of them is looked at first
        other = report_on(film, SOPInstanceUID=f"2.25.200{number}", SeriesInstanceUID=f"2.25.300{number}")
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = SR, first.SOPInstanceUID
        other.ContentSequence[1].ReferencedSOPSequence.append(reference)
        assert own.service.post(body_of(encode(other)))[0] == 202
    before = own.kept()
    own.zones.take_in(SECOND, film={"BurnedInAnnotation": "YES"})
    assert own.settle(SECOND) == Settled(destroyed=0, hidden=5)
    own.zones.vanish(SECOND)
    assert own.settle(SECOND) == Settled(destroyed=0, hidden=0)
    assert own.kept() == before
    own.zones.vanish(FIRST)
    assert own.settle() == Settled(destroyed=5, hidden=0)
    assert not own.copies()
