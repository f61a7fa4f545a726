"""Retrievals from real servers: Orthanc by DIMSE, DICOMweb and its log, DCMTK's dcmqrscp, and an odd PACS."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]

from imaging_pipeline.errors import ConfigurationError, TransientError
from imaging_pipeline.pacs.config import Method, OwnAe, PacsConfig, Peer, PeerKind, Retrieval
from imaging_pipeline.pacs.fetching import Clock, Round
from imaging_pipeline.pacs.http import open_client
from imaging_pipeline.pacs.landing import Landing
from imaging_pipeline.pacs.listener import listening
from imaging_pipeline.pacs.orthanc import Followed
from imaging_pipeline.pacs.parts import PartFiles
from imaging_pipeline.pacs.reaching import reach
from imaging_pipeline.pacs.rounds import open_studies, run_retrieval, server_of
from imaging_pipeline.settings import Settings
from imaging_pipeline_tests.servers.pacs import (
    Orthanc,
    dcmtk,
    free_port,
    is_open,
    require,
    running,
    running_orthanc,
    wait_for,
)

CLOCK = Clock(lambda: datetime.now().astimezone(), time.sleep)
FILES = [Path(str(get_testdata_file(name))) for name in ("CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm")]
PATIENTS = {"1CT1", "4MR1"}


@pytest.fixture(scope="module")
def listener_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory, listener_port: int) -> Iterator[Orthanc]:
    modalities = {"PIPELINE": ("127.0.0.1", listener_port)}
    with running_orthanc(tmp_path_factory.mktemp("orthanc"), modalities) as server:
        server.store(*FILES[:2])
        yield server


@pytest.fixture
def config(orthanc: Orthanc, listener_port: int, tmp_path: Path) -> PacsConfig:
    (tmp_path / "cohort.csv").write_text("PatientID\n1CT1\n4MR1\nNOBODY\n")
    peers = (
        Peer("dimse", PeerKind.DIMSE, "landing", "ORTHANC", "127.0.0.1", orthanc.dicom_port),
        Peer("web", PeerKind.DICOMWEB, "landing", url=orthanc.dicomweb_url),
        Peer("log", PeerKind.ORTHANC, "landing", url=orthanc.url),
    )
    return PacsConfig(OwnAe(port=listener_port, free_bytes=0), peers)


@pytest.fixture
def landing(settings: Settings) -> Path:
    settings.landing.mkdir(parents=True)
    return settings.landing


def patients(landing: Path) -> set[str]:
    return {str(pydicom.dcmread(path).PatientID) for path in landing.rglob("*.dcm")}


@pytest.mark.parametrize(("peer", "method"), [("dimse", Method.MOVE), ("dimse", Method.GET), ("web", Method.MOVE)])
def test_the_studies_of_a_cohort_land(
    config: PacsConfig, settings: Settings, landing: Path, tmp_path: Path, peer: str, method: Method
) -> None:
    cohort = Retrieval("trial", peer, cohort=tmp_path / "cohort.csv", method=method)
    with listening(config, settings):
        done = run_retrieval(cohort, config, settings, CLOCK)
    assert done == Round(offered=2, fetched=2, instances=2, unknown=1)
    assert patients(landing) == PATIENTS
    assert not list(landing.rglob(".*"))
    assert not list((settings.home / "identified" / "incoming").glob("*/*.dcm"))


def test_a_move_without_a_listener_is_an_error_and_the_studies_wait(
    config: PacsConfig, settings: Settings, landing: Path, tmp_path: Path
) -> None:
    cohort = Retrieval("trial", "dimse", cohort=tmp_path / "cohort.csv")
    done = run_retrieval(cohort, config, settings, CLOCK)
    assert isinstance(done, Round)
    assert (done.fetched, done.incomplete) == (0, 2)
    assert patients(landing) == set()


def test_an_orthanc_is_followed_from_its_first_instance_on(
    config: PacsConfig, settings: Settings, landing: Path, orthanc: Orthanc, tmp_path: Path
) -> None:
    follow = Retrieval("follow", "log")
    assert run_retrieval(follow, config, settings, CLOCK) == Followed(new=2, is_complete=True)
    assert {path.read_bytes() for path in landing.rglob("*.dcm")} == {path.read_bytes() for path in FILES[:2]}
    (third,) = orthanc.store(FILES[2])
    assert run_retrieval(follow, config, settings, CLOCK) == Followed(new=1, is_complete=True)
    orthanc.call("DELETE", f"/instances/{third}")
    assert run_retrieval(follow, config, settings, CLOCK) == Followed(is_complete=True)
    ds = pydicom.dcmread(FILES[0])
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    ds.save_as(tmp_path / "fourth.dcm")
    (fourth,) = orthanc.store(tmp_path / "fourth.dcm")
    orthanc.call("DELETE", "/changes")  # what came is in no log: all are listed, and those that never landed fetched
    assert run_retrieval(follow, config, settings, CLOCK) == Followed(new=1, is_complete=True)
    assert run_retrieval(follow, config, settings, CLOCK) == Followed(is_complete=True)
    orthanc.call("DELETE", f"/instances/{fourth}")
    with open_studies(settings) as ledger:
        ledger.set_cursor("follow", 1_000_000)  # another database has taken its place, whose log is younger
    for path in landing.rglob("*.dcm"):
        path.unlink()
    assert run_retrieval(follow, config, settings, CLOCK) == Followed(new=2, is_complete=True)


def test_two_rounds_of_one_retrieval_do_not_run_at_once(
    config: PacsConfig, settings: Settings, landing: Path, tmp_path: Path
) -> None:
    cohort = Retrieval("trial", "web", cohort=tmp_path / "cohort.csv")

    tried = []

    def begin_another(seconds: float) -> None:
        tried.append(seconds)
        with pytest.raises(TransientError, match="running already"):
            run_retrieval(cohort, config, settings, CLOCK)

    run_retrieval(replace(cohort, studies_per_hour=1), config, settings, Clock(CLOCK.now, begin_another))
    assert len(tried) == 1
    run_retrieval(cohort, config, settings, CLOCK)


def test_a_round_of_following_that_is_told_to_stop_goes_on_later(
    config: PacsConfig, settings: Settings, landing: Path
) -> None:
    follow = Retrieval("follow", "log")
    now = datetime.now().astimezone()
    done = run_retrieval(follow, config, settings, Clock(lambda: datetime.now().astimezone(), time.sleep, now))
    assert isinstance(done, Followed)
    assert not done.is_complete
    done = run_retrieval(follow, config, settings, CLOCK)
    assert isinstance(done, Followed)
    assert done.is_complete
    assert patients(landing) >= PATIENTS


@pytest.mark.parametrize("name", ["dimse", "web", "log"])
def test_a_peer_says_that_it_is_there(config: PacsConfig, name: str) -> None:
    reach(config.ae, config.peer(name))
    silent = replace(config.peer(name), port=free_port(), url=f"http://127.0.0.1:{free_port()}")
    if name == "dimse":
        silent = replace(silent, url="")
    with pytest.raises(TransientError) as caught:
        reach(config.ae, silent)
    assert "127.0.0.1" not in str(caught.value)


def test_a_full_disk_is_noticed_before_a_peer_is_asked(
    config: PacsConfig, settings: Settings, landing: Path, tmp_path: Path
) -> None:
    full = replace(config, ae=replace(config.ae, free_bytes=1 << 60))
    with pytest.raises(TransientError, match="nearly full"):
        run_retrieval(Retrieval("trial", "web", cohort=tmp_path / "cohort.csv"), full, settings, CLOCK)


def test_a_token_comes_from_the_environment_and_a_missing_one_is_said(
    config: PacsConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = replace(config.peer("web"), token_variable="A_TOKEN_OF_A_TEST")
    monkeypatch.delenv("A_TOKEN_OF_A_TEST", raising=False)
    with pytest.raises(ConfigurationError, match="A_TOKEN_OF_A_TEST is not set"), open_client(peer):
        pass
    monkeypatch.setenv("A_TOKEN_OF_A_TEST", "opensesame")
    with open_client(peer) as client:
        assert client.headers["Authorization"] == "Bearer opensesame"


def body(*files: Path, end: str = "\r\n--B--\r\n") -> bytes:
    parts = [b"\r\n--B\r\nContent-Type: application/dicom\r\n\r\n" + path.read_bytes() for path in files]
    return b"".join(parts) + end.encode()


def test_parts_land_whatever_blocks_they_come_in(landing: Path) -> None:
    content = body(*FILES[:2])
    for size in (7, 4_096, len(content)):
        with PartFiles('multipart/related; type="application/dicom"; boundary=B', Landing(landing, 0)) as parts:
            for start in range(0, len(content), size):
                parts.write(content[start : start + size])
            assert parts.close() == 2
    assert {path.read_bytes() for path in landing.rglob("*.dcm")} == {path.read_bytes() for path in FILES[:2]}


def test_a_body_that_ends_in_its_middle_is_an_error_and_its_whole_parts_stay(landing: Path) -> None:
    with PartFiles("multipart/related; boundary=B", Landing(landing, 0)) as parts:
        parts.write(body(*FILES[:2])[:-2_000])
        with pytest.raises(TransientError, match="in its middle"):
            parts.close()
    assert [path.read_bytes() for path in landing.rglob("*") if path.is_file()] == [FILES[0].read_bytes()]


def test_an_answer_that_is_no_multipart_is_an_error(landing: Path) -> None:
    with pytest.raises(TransientError, match="something else"):
        PartFiles("text/html", Landing(landing, 0))


@pytest.fixture
def dcmqrscp(tmp_path: Path) -> Iterator[int]:
    """DCMTK's archive, with four files of two studies."""
    require("dcmqrscp", "storescu")
    port, area = free_port(), tmp_path / "area"
    area.mkdir()
    (tmp_path / "dcmqrscp.cfg").write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 4\nHostTable BEGIN\nHostTable END\n"
        f"VendorTable BEGIN\nVendorTable END\nAETable BEGIN\nARCHIVE {area} RW (9, 1024mb) ANY\nAETable END\n"
    )
    with running(["dcmqrscp", "-c", str(tmp_path / "dcmqrscp.cfg")], tmp_path / "dcmqrscp.log") as process:
        wait_for(lambda: is_open(port), process)
        assert dcmtk("storescu", "-aec", "ARCHIVE", "127.0.0.1", str(port), *FILES[:2]).returncode == 0
        yield port


def test_a_pacs_that_does_not_count_has_its_instances_counted_and_gives_them_by_c_get(
    dcmqrscp: int, settings: Settings, landing: Path, tmp_path: Path
) -> None:
    (tmp_path / "cohort.csv").write_text("PatientID\n1CT1\n4MR1\n")
    archive = Peer("archive", PeerKind.DIMSE, "landing", "ARCHIVE", "127.0.0.1", dcmqrscp)
    config = PacsConfig(OwnAe(port=free_port(), free_bytes=0), (archive,))
    cohort = Retrieval("trial", "archive", cohort=tmp_path / "cohort.csv", method=Method.GET)
    assert [study.instances for study in server_of(cohort, config, settings).find([{"PatientID": "1CT1"}])] == [1]
    assert run_retrieval(cohort, config, settings, CLOCK) == Round(offered=2, fetched=2, instances=2)
    assert patients(landing) == PATIENTS


def test_a_pacs_that_ignores_a_key_does_not_give_its_whole_archive(settings: Settings) -> None:
    def offer_everything(event: Event) -> Iterator[tuple[int, Dataset | None]]:
        for number in range(50):
            found = Dataset()
            found.QueryRetrieveLevel, found.StudyInstanceUID = "STUDY", f"1.2.{number}"
            found.AccessionNumber, found.NumberOfStudyRelatedInstances = str(number), "3"
            yield 0xFF00, found

    with odd_pacs(offer_everything) as config:
        server = server_of(Retrieval("r", "odd"), config, settings)
        assert [study.study_uid for study in server.find([{"AccessionNumber": "7"}])] == ["1.2.7"]


def test_a_search_that_a_pacs_breaks_off_is_an_error(settings: Settings) -> None:
    def fail(event: Event) -> Iterator[tuple[int, Dataset | None]]:
        yield 0xA700, None

    with odd_pacs(fail) as config, pytest.raises(TransientError, match="A700"):
        list(server_of(Retrieval("r", "odd"), config, settings).find([{"AccessionNumber": "7"}]))


def test_no_answer_is_lost_to_the_thread_of_the_association(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is paused while a question is open, and may be late with it; here it never pauses."""

    class Never(threading.Event):
        def clear(self) -> None:
            pass

    checkpoint = Never()
    checkpoint.set()
    monkeypatch.setattr(Association, "_reactor_checkpoint", property(lambda _: checkpoint, lambda *_: None), False)
    monkeypatch.setattr(Association, "_is_paused", property(lambda _: True, lambda *_: None), False)

    def offer_three(event: Event) -> Iterator[tuple[int, Dataset | None]]:
        for number in range(3):
            found = Dataset()
            found.AccessionNumber = event.identifier.AccessionNumber
            found.StudyInstanceUID = f"1.2.{found.AccessionNumber}.{number}"
            found.NumberOfStudyRelatedInstances = 1
            yield 0xFF00, found

    with odd_pacs(offer_three) as config:
        server = server_of(Retrieval("r", "odd"), config, settings)
        offered = [study.study_uid for study in server.find({"AccessionNumber": f"{k}"} for k in range(1, 51))]
    assert offered == [f"1.2.{accession}.{number}" for accession in range(1, 51) for number in range(3)]


class odd_pacs:  # noqa: N801 - reads as a function
    """A PACS that answers C-FIND as the test says."""

    def __init__(self, answer: object) -> None:
        entity = AE("ODD")
        entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        self._server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, answer)])

    def __enter__(self) -> PacsConfig:
        assert self._server is not None
        port = int(self._server.server_address[1])
        return PacsConfig(OwnAe(free_bytes=0), (Peer("odd", PeerKind.DIMSE, "landing", "ODD", "127.0.0.1", port),))

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.shutdown()
