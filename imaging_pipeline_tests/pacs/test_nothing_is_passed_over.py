"""Servers that say more, or less, than is true: what they have and did not give is not taken for done."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pydicom.data import get_testdata_file

from imaging_pipeline.errors import TransientError
from imaging_pipeline.pacs import orthanc as follower
from imaging_pipeline.pacs import web_pull
from imaging_pipeline.pacs.config import OwnAe, PacsConfig, Peer, PeerKind, Retrieval
from imaging_pipeline.pacs.fetching import Clock, Round
from imaging_pipeline.pacs.landing import Landing
from imaging_pipeline.pacs.listener import listening
from imaging_pipeline.pacs.orthanc import Followed
from imaging_pipeline.pacs.rounds import run_retrieval
from imaging_pipeline.pacs.web_pull import WebStudies
from imaging_pipeline.settings import Settings
from imaging_pipeline_tests.servers.faults import Fault, FaultyProxy, faulty_proxy
from imaging_pipeline_tests.servers.pacs import Orthanc, free_port, running_orthanc

CLOCK = Clock(lambda: datetime.now().astimezone(), time.sleep)
FILES = [Path(str(get_testdata_file(name))) for name in ("CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm")]
FOLLOW = Retrieval("follow", "log")


@pytest.fixture(scope="module")
def listener_port() -> int:
    return free_port()


@pytest.fixture
def orthanc(tmp_path: Path, listener_port: int) -> Iterator[Orthanc]:
    with running_orthanc(tmp_path / "orthanc", {"PIPELINE": ("127.0.0.1", listener_port)}) as server:
        server.store(*FILES)
        yield server


@pytest.fixture
def proxy(orthanc: Orthanc) -> Iterator[FaultyProxy]:
    with faulty_proxy(orthanc.http_port) as proxy:
        yield proxy


def behind(proxy: FaultyProxy) -> PacsConfig:
    return PacsConfig(OwnAe(free_bytes=0), (Peer("log", PeerKind.ORTHANC, "landing", url=proxy.endpoint_url),))


@pytest.fixture(autouse=True)
def landing(settings: Settings) -> Path:
    settings.landing.mkdir(parents=True)
    return settings.landing


def landed(folder: Path) -> set[bytes]:
    return {path.read_bytes() for path in folder.rglob("*.dcm")}


def test_what_a_pacs_moved_to_another_machine_has_not_come(
    orthanc: Orthanc, listener_port: int, settings: Settings, landing: Path, tmp_path: Path
) -> None:
    """It knows our AE title by the address of another listener, and says that all went well."""
    (tmp_path / "cohort.csv").write_text("PatientID\n1CT1\n")
    peer = Peer("dimse", PeerKind.DIMSE, "landing", "ORTHANC", "127.0.0.1", orthanc.dicom_port)
    config = PacsConfig(OwnAe(port=listener_port, free_bytes=0), (peer,))
    former = Settings.from_environment({"IMAGING_PIPELINE_HOME": str(tmp_path / "former")})
    former.landing.mkdir(parents=True)
    cohort = Retrieval("trial", "dimse", cohort=tmp_path / "cohort.csv")
    with listening(config, former):
        done = run_retrieval(cohort, config, settings, CLOCK)
    assert len(landed(former.landing)) == 1
    assert not landed(landing)
    assert done == Round(offered=1, incomplete=1)


@pytest.mark.parametrize("is_first", [True, False])
def test_an_instance_that_orthanc_has_and_does_not_give_is_an_error(
    proxy: FaultyProxy, settings: Settings, landing: Path, is_first: bool
) -> None:
    if not is_first:
        proxy.add(Fault(lambda _, path: path.startswith("/instances?"), times=1, status=503))
        with pytest.raises(TransientError):
            run_retrieval(FOLLOW, behind(proxy), settings, CLOCK)
    proxy.add(Fault(lambda _, path: path.endswith("/file"), times=2, status=404))
    with pytest.raises(TransientError, match="404"):
        run_retrieval(FOLLOW, behind(proxy), settings, CLOCK)
    proxy.reset()
    done = run_retrieval(FOLLOW, behind(proxy), settings, CLOCK)
    assert isinstance(done, Followed)
    assert done.is_complete
    assert landed(landing) == {path.read_bytes() for path in FILES}


def test_what_is_deleted_while_orthanc_is_listed_hides_nothing(
    proxy: FaultyProxy, orthanc: Orthanc, settings: Settings, landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "PAGE", 1)
    first = orthanc.call("GET", "/instances")[0]
    proxy.add(
        Fault(
            lambda _, path: path.startswith("/instances?"), change=lambda: orthanc.call("DELETE", f"/instances/{first}")
        )
    )
    assert run_retrieval(FOLLOW, behind(proxy), settings, CLOCK) == Followed(new=2, gone=1, is_complete=True)
    assert len(landed(landing)) == 2


@contextmanager
def archive_without_offset(most: int, warning: str) -> Iterator[str]:
    """A DICOMweb service of four studies that gives the first ``most`` of them, whatever it is asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert urlsplit(self.path).path == "/studies"
            found = [{"0020000D": {"Value": [f"1.{n}"]}, "00201208": {"Value": [1]}} for n in range(4)][:most]
            content = json.dumps(found).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            if warning:
                self.send_header("Warning", warning)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("most", "warning", "is_cut"),
    [
        (3, "", True),
        (2, '299 archive "There are 2 additional results that can be requested"', True),
        (4, "", False),
    ],
)
def test_answers_that_are_cut_and_cannot_be_paged_are_an_error(
    landing: Path, monkeypatch: pytest.MonkeyPatch, most: int, warning: str, is_cut: bool
) -> None:
    monkeypatch.setattr(web_pull, "PAGE", 3)
    with archive_without_offset(most, warning) as url:
        offered = WebStudies(Peer("web", PeerKind.DICOMWEB, "landing", url=url), Landing(landing, 0)).find([{}])
        if is_cut:
            with pytest.raises(TransientError, match="knows no offset"):
                list(offered)
        else:
            assert len(list(offered)) == 4
