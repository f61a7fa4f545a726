"""Storing into the clinical zone: what lands, what is refused, and what is answered (PS3.18 10.5)."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless

from imaging_pipeline.errors import TransientError
from imaging_pipeline.pacs.landing import Landing
from imaging_pipeline.web.stow.examination import examine
from imaging_pipeline.web.stow.landing import LandingReceiver
from imaging_pipeline.web.stow.receiving import Transaction
from imaging_pipeline_tests.deid.corpus import NAME, ROOT, chest_film, encode
from imaging_pipeline_tests.web.stow.service import MULTIPART, Service, body_of, failures, stored

STUDY = f"{ROOT}.1"


def film(number: int = 1, **attributes: object) -> bytes:
    return encode(chest_film(SOPInstanceUID=f"{ROOT}.3.{number}", **attributes))


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Service, Path]:
    folder = tmp_path_factory.mktemp("clinic")
    landing = folder / "landing"
    landing.mkdir()
    return Service(folder, "clinical", LandingReceiver(Landing(landing, 0))), landing


@pytest.fixture
def service(clinic: tuple[Service, Path]) -> Service:
    return clinic[0]


@pytest.fixture
def landing(clinic: tuple[Service, Path]) -> Iterator[Path]:
    yield clinic[1]
    for path in clinic[1].rglob("*"):
        if path.is_file():
            path.unlink()


def landed(landing: Path) -> list[Path]:
    return sorted(path for path in landing.rglob("*") if path.is_file())


def test_objects_land_with_their_bytes_and_the_answer_says_where_they_are(service: Service, landing: Path) -> None:
    films = [film(1), film(2)]
    status, answer = service.post(body_of(*films))
    assert status == 200
    assert stored(answer) == [f"{ROOT}.3.1", f"{ROOT}.3.2"]
    assert {path.read_bytes() for path in landed(landing)} == set(films)
    place = answer["00081199"]["Value"][1]["00081190"]["Value"][0]
    assert place == f"http://pacs.test/dicom-web/studies/{STUDY}/series/{ROOT}.2/instances/{ROOT}.3.2"
    assert answer["00081190"]["Value"] == [f"http://pacs.test/dicom-web/studies/{STUDY}"]
    assert service.refreshed


def test_the_same_object_again_is_as_good_as_stored_and_changes_nothing(service: Service, landing: Path) -> None:
    first, second = service.post(body_of(film())), service.post(body_of(film()))
    assert first == second
    assert len(landed(landing)) == 1


def test_other_bytes_under_the_same_uid_are_kept_beside_it(service: Service, landing: Path) -> None:
    service.post(body_of(film()))
    status, _ = service.post(body_of(film(StudyDescription="CORRECTED")))
    assert (status, len(landed(landing))) == (200, 2)


def test_one_object_is_sent_without_multipart_too(service: Service, landing: Path) -> None:
    status, answer = service.post(film(), kind="application/dicom")
    assert (status, len(stored(answer)), len(landed(landing))) == (200, 1, 1)


def test_objects_of_another_study_than_the_paths_are_refused(service: Service, landing: Path) -> None:
    other = film(2, StudyInstanceUID=f"{ROOT}.77")
    status, answer = service.post(body_of(film(1), other), study=STUDY)
    assert (status, stored(answer), failures(answer)) == (202, [f"{ROOT}.3.1"], [0x0110])
    assert service.post(body_of(other), study=STUDY)[0] == 409
    assert len(landed(landing)) == 1


def _without_meta() -> bytes:
    return film()[132 + 200 :]


def _cut_fragments() -> bytes:
    return Path(str(get_testdata_file("JPEG2000.dcm"))).read_bytes()[:-2000]


def _cut_large_fragments() -> bytes:
    ds = chest_film(Rows=300, Columns=300)
    ds.PixelData = encapsulate([bytes(range(256)) * 700])
    ds["PixelData"].is_undefined_length = True
    return encode(ds, RLELossless)[:-1000]


BAD = {
    "no DICOM": b"hello",
    "nothing": b"",
    "cut header": film()[:400],
    "cut pixels": film()[:-4],
    "cut fragments": _cut_fragments(),
    "cut large fragments": _cut_large_fragments(),
    "no file meta": _without_meta(),
    "no study": encode(chest_film(StudyInstanceUID=None)),
    "bad UID": encode(chest_film(SOPInstanceUID="1.2.x")),
    "UID of a path": encode(chest_film(SOPInstanceUID="../../1")),
    "long UID": encode(chest_film(StudyInstanceUID="1." + "2" * 70)),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD.keys())
def test_what_is_no_whole_object_is_refused_and_the_others_are_kept(
    service: Service, landing: Path, content: bytes
) -> None:
    status, answer = service.post(body_of(content, film()))
    assert (status, failures(answer), stored(answer)) == (202, [0xC000], [f"{ROOT}.3.1"])
    assert len(landed(landing)) == 1
    assert service.post(body_of(content))[0] == 409


def test_the_file_meta_information_must_name_the_object_it_is_of(service: Service, landing: Path) -> None:
    ds = chest_film()
    encode(ds)
    ds.file_meta.MediaStorageSOPInstanceUID = f"{ROOT}.3.9"
    path = landing / ".lying"
    pydicom.dcmwrite(path, ds)
    lying = path.read_bytes().replace(f"{ROOT}.3.1".encode(), f"{ROOT}.3.7".encode(), 1)
    path.unlink()
    status, answer = service.post(body_of(lying))
    assert (status, failures(answer)) == (409, [0xC000])
    assert not landed(landing)


@pytest.mark.parametrize(
    ("kind", "accept", "status"),
    [
        ("application/json", "*/*", 415),
        ('multipart/related; type="application/dicom+json"; boundary=x', "*/*", 415),
        ("multipart/form-data; boundary=x", "*/*", 415),
        ('multipart/related; type="application/dicom"', "*/*", 400),
        (MULTIPART, "application/dicom+xml", 406),
    ],
)
def test_requests_of_another_kind_are_refused_before_they_are_read(
    service: Service, landing: Path, kind: str, accept: str, status: int
) -> None:
    assert service.post(body_of(film()), kind=kind, Accept=accept)[0] == status
    assert not landed(landing)


def test_a_body_that_is_cut_off_keeps_what_came_whole_and_leaves_no_half(service: Service, landing: Path) -> None:
    whole = body_of(film(1), film(2))
    status, answer = service.post(whole[: len(whole) - 300])
    assert status == 400
    assert "detail" in answer
    assert [path.read_bytes() for path in landed(landing)] == [film(1)]


def test_many_objects_of_one_request_are_answered_in_their_order(service: Service, landing: Path) -> None:
    contents = [b"hello" if number % 5 == 0 else film(number % 30) for number in range(60)]
    status, answer = service.post(body_of(*contents))
    assert (status, failures(answer)) == (202, [0xC000] * 12)
    kept = [number % 30 for number in range(60) if number % 5]
    assert stored(answer) == [f"{ROOT}.3.{number}" for number in kept]
    assert {path.read_bytes() for path in landed(landing)} == {film(number) for number in kept}


def test_an_empty_body_and_a_study_that_is_none_are_bad_requests(service: Service, landing: Path) -> None:
    assert service.post(body_of())[0] == 400
    assert service.post(body_of(film()), study="1.2.x")[0] == 400
    assert not landed(landing)


def test_only_who_may_write_stores(service: Service, landing: Path) -> None:
    assert service.post(body_of(film()), user="reader")[0] == 403
    assert (
        service.client.post(
            "/dicom-web/studies", content=body_of(film()), headers={"Content-Type": MULTIPART}
        ).status_code
        == 401
    )
    assert not landed(landing)


def test_no_answer_repeats_a_value_of_an_object(service: Service, landing: Path) -> None:
    del landing
    for content in (body_of(film()), body_of(film(StudyInstanceUID=f"{ROOT}.77")), body_of(b"hello"), b"hello"):
        _, answer = service.post(content, study=STUDY)
        assert NAME.partition("^")[0] not in str(answer)


def test_a_disk_without_room_is_said_before_and_while_objects_come(tmp_path: Path) -> None:
    class Filling(Landing):
        room = 2

        def part(self) -> Path:
            self.room -= 1
            if self.room < 0:
                raise TransientError("no room")
            return super().part()

    full = Service(tmp_path / "full", "clinical", LandingReceiver(Landing(tmp_path, 1 << 60)))
    assert full.post(body_of(film()))[0] == 507
    (tmp_path / "landing").mkdir()
    filling = Service(tmp_path / "filling", "clinical", LandingReceiver(Filling(tmp_path / "landing", 0)))
    status, answer = filling.post(body_of(film(1), film(2), film(3)))
    assert (status, len(stored(answer)), failures(answer)) == (202, 2, [0xA700])
    assert filling.post(body_of(film(3)))[0] == 507


def test_a_large_object_is_not_held_in_memory(service: Service, landing: Path) -> None:
    ds = chest_film(Rows=4096, Columns=4096, NumberOfFrames=2)
    ds.PixelData = bytes(4096 * 4096 * 2 * 2)
    whole = body_of(encode(ds))

    def blocks() -> Iterator[bytes]:
        for start in range(0, len(whole), 65_536):
            yield whole[start : start + 65_536]

    receiver = LandingReceiver(Landing(landing, 0))

    tracemalloc.start()
    try:
        transaction = Transaction(receiver, "ann", None, MULTIPART.rpartition("=")[2])
        for block in blocks():
            transaction.feed(block)
        fates = transaction.finish()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(fates) == 1
    assert examine(landed(landing)[0]).study_uid == STUDY
    assert peak < 8 << 20
