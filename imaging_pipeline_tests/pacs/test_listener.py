from __future__ import annotations

import logging
import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import JPEG2000, CTImageStorage, DeflatedExplicitVRLittleEndian, RLELossless
from pynetdicom import AE, _config
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import build_context

from imaging_pipeline.errors import ConfigurationError, TransientError
from imaging_pipeline.pacs.config import OwnAe, PacsConfig, Peer, PeerKind
from imaging_pipeline.pacs.listener import listening
from imaging_pipeline.pacs.reaching import reach
from imaging_pipeline.settings import Settings
from imaging_pipeline_tests.conftest import environment
from imaging_pipeline_tests.pacs.certificates import Certificates, make_certificates
from imaging_pipeline_tests.servers.pacs import dcmtk, free_port, is_open, running, stop, wait_for

MODALITY = Peer("modality", PeerKind.DIMSE, source="landing", ae_title="MODALITY", host="127.0.0.1")
CT = Path(str(get_testdata_file("CT_small.dcm")))
CT_DATA_SET = CT.read_bytes()[144 + int(pydicom.dcmread(CT).file_meta.FileMetaInformationGroupLength) :]
MIXED = [
    Path(str(get_testdata_file(name)))
    for name in ("CT_small.dcm", "MR_small_bigendian.dcm", "JPEG2000.dcm", "MR_small_RLE.dcm", "image_dfl.dcm")
]


@pytest.fixture
def config() -> PacsConfig:
    return PacsConfig(OwnAe(port=free_port(), free_bytes=0), (MODALITY,))


@pytest.fixture
def port(config: PacsConfig, settings: Settings) -> Iterator[int]:
    settings.landing.mkdir(parents=True)
    with listening(config, settings) as port:
        yield port


def send(port: int, *paths: Path, title: str = "MODALITY") -> subprocess.CompletedProcess[str]:
    """DCMTK's dcmsend: each file in the transfer syntax it is in."""
    return dcmtk("dcmsend", "-aet", title, "-aec", "PIPELINE", "-dn", "127.0.0.1", str(port), *paths)


def landed(settings: Settings) -> list[Path]:
    return sorted(path for path in settings.landing.rglob("*") if path.is_file())


def content(path: Path) -> bytes:
    """Transfer syntax and data set of a file."""
    ds = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[])
    start = 144 + int(ds.file_meta.FileMetaInformationGroupLength)
    return str(ds.file_meta.TransferSyntaxUID).encode() + path.read_bytes()[start:]


@contextmanager
def associated(port: int, ds: pydicom.Dataset) -> Iterator[Association]:
    """An association for one data set, as its file has it."""
    context = build_context(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID)
    association = AE("MODALITY").associate("127.0.0.1", port, [context], ae_title="PIPELINE")
    assert association.is_established
    yield association
    association.release()


def test_objects_of_all_transfer_syntaxes_land_byte_for_byte(
    port: int, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)  # the sender changes nothing either
    for _ in range(2):
        for path in MIXED:
            with associated(port, pydicom.dcmread(path)) as association:
                assert association.send_c_store(path).Status == 0
    assert {content(path) for path in landed(settings)} == {content(path) for path in MIXED}
    assert len(landed(settings)) == len(MIXED)
    assert list((settings.home / "identified" / "incoming").glob("*/*.dcm")) == []


def test_what_is_being_received_is_for_its_owner_alone(port: int, settings: Settings) -> None:
    incoming = settings.home / "identified" / "incoming"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (incoming.parent, incoming)] == [0o700, 0o700]


def test_compressed_objects_of_dcmtk_stay_compressed(port: int, settings: Settings) -> None:
    sent = send(port, *MIXED)
    assert sent.returncode == 0, sent.stderr
    syntaxes = {pydicom.dcmread(path).file_meta.TransferSyntaxUID for path in landed(settings)}
    assert {JPEG2000, RLELossless, DeflatedExplicitVRLittleEndian} <= syntaxes


def test_the_listener_answers_c_echo(port: int) -> None:
    assert dcmtk("echoscu", "-aet", "MODALITY", "-aec", "PIPELINE", "127.0.0.1", str(port)).returncode == 0


@pytest.mark.parametrize(("title", "called"), [("STRANGER", "PIPELINE"), ("MODALITY", "ANOTHER")])
def test_strangers_are_rejected(port: int, settings: Settings, title: str, called: str) -> None:
    refused = dcmtk("storescu", "-v", "-aet", title, "-aec", called, "127.0.0.1", str(port), CT)
    assert refused.returncode != 0
    assert "Rejected Permanent" in refused.stdout + refused.stderr
    assert landed(settings) == []


def test_a_known_title_from_another_address_is_rejected(config: PacsConfig, settings: Settings) -> None:
    settings.landing.mkdir(parents=True)
    moved = replace(config, peers=(replace(MODALITY, host="192.0.2.1"),))
    with listening(moved, settings) as port:
        assert send(port, CT).returncode != 0
    allowed = replace(config, peers=(replace(MODALITY, host="192.0.2.1", addresses=("127.0.0.1",)),))
    with listening(allowed, settings) as port:
        assert send(port, CT).returncode == 0
    assert len(landed(settings)) == 1


def store_private(port: int) -> int:
    """The status of an object of a private storage class."""
    ds = pydicom.dcmread(CT)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.826.0.1.3680043.9.7433.99.1"
    with associated(port, ds) as association:
        return int(association.send_c_store(ds).Status)


def test_private_storage_classes_are_taken_where_the_configuration_says_so(
    config: PacsConfig, settings: Settings
) -> None:
    settings.landing.mkdir(parents=True)
    with listening(config, settings) as port:
        assert store_private(port) == 0
    with listening(replace(config, ae=replace(config.ae, unknown_sop_classes=False)), settings) as port:
        assert store_private(port) == 0x0122
    assert len(landed(settings)) == 1


def request_of(uid: str, data: bytes) -> C_STORE:
    """A C-STORE request as an odd sender might make it."""
    request = C_STORE()
    request.MessageID, request.Priority = 1, 0
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = CTImageStorage, uid
    request.DataSet = BytesIO(data)
    return request


@pytest.mark.parametrize("data", [CT_DATA_SET, b"no data set at all"], ids=["another", "garbage"])
def test_what_is_not_what_it_was_announced_as_is_refused(port: int, settings: Settings, data: bytes) -> None:
    with associated(port, pydicom.dcmread(CT)) as association:
        association._reactor_checkpoint.clear()
        association.dimse.send_msg(request_of("1.2.3", data), 1)
        _, answer = association.dimse.get_msg(block=True)
        association._reactor_checkpoint.set()
        assert answer is not None
        assert answer.Status == 0xC000
    assert landed(settings) == []


def test_a_nearly_full_disk_is_said_with_a700_and_nothing_is_written(config: PacsConfig, settings: Settings) -> None:
    settings.landing.mkdir(parents=True)
    with listening(replace(config, ae=replace(config.ae, free_bytes=1 << 60)), settings) as port:
        refused = dcmtk("storescu", "-v", "-aet", "MODALITY", "-aec", "PIPELINE", "127.0.0.1", str(port), CT)
        assert "OutOfResources" in refused.stdout + refused.stderr
        assert dcmtk("echoscu", "-aet", "MODALITY", "-aec", "PIPELINE", "127.0.0.1", str(port)).returncode == 0
    assert landed(settings) == []


def test_a_disk_that_fills_up_in_the_middle_of_an_object_is_said_with_a700(
    port: int, settings: Settings, tmp_path: Path
) -> None:
    large = tmp_path / "large.dcm"
    ds = pydicom.dcmread(CT)
    ds.Rows, ds.Columns, ds.PixelData = 2048, 2048, bytes(2 * 2048 * 2048)
    ds.save_as(large)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a file may not grow beyond the limit, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, limits[1]))
    try:
        refused = dcmtk("storescu", "-v", "-aet", "MODALITY", "-aec", "PIPELINE", "127.0.0.1", str(port), large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert "OutOfResources" in refused.stdout + refused.stderr
    assert landed(settings) == []
    assert list((settings.home / "identified" / "incoming").glob("*/*.dcm")) == []
    assert send(port, large).returncode == 0
    assert len(landed(settings)) == 1


def test_a_sender_that_dies_in_the_middle_leaves_nothing(port: int, settings: Settings) -> None:
    incoming = settings.home / "identified" / "incoming"
    with half_an_object(port):
        wait_for(lambda: any(path.stat().st_size for path in incoming.glob("*/*.dcm")))
    wait_for(lambda: not list(incoming.glob("*/*.dcm")))
    assert landed(settings) == []


@contextmanager
def half_an_object(port: int) -> Iterator[None]:
    """A sender that has sent the first part of a data set, and breaks off."""
    message = C_STORE_RQ()
    message.primitive_to_message(request_of("1.2.3", bytes(200_000)))
    ds = pydicom.dcmread(CT)
    context = build_context(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID)
    association = AE("MODALITY").associate("127.0.0.1", port, [context], ae_title="PIPELINE")
    assert association.is_established
    for part in list(message.encode_msg(1, 16_000))[:-2]:
        association.dul.send_pdu(part)
    yield
    association.abort()


@pytest.mark.slow
def test_a_killed_listener_leaves_nothing_half_and_the_next_one_clears_up(tmp_path: Path, settings: Settings) -> None:
    settings.landing.mkdir(parents=True)
    port = free_port()
    pacs = tmp_path / "pacs.yaml"
    pacs.write_text(
        f"ae: {{port: {port}, free_bytes: 0}}\n"
        "peers: [{name: modality, kind: dimse, ae_title: MODALITY, host: 127.0.0.1, source: landing}]\n"
    )
    incoming = settings.home / "identified" / "incoming"
    command = [sys.executable, "-m", "imaging_pipeline.cli", "pacs", "listen"]
    variables = os.environ | environment(settings.home, PACS=str(pacs))
    with running(command, tmp_path / "log", env=variables) as process:
        wait_for(lambda: is_open(port), process)
        with half_an_object(port):
            wait_for(lambda: any(path.stat().st_size for path in incoming.glob("*/*.dcm")))
            stop(process)
    assert landed(settings) == []
    assert list(incoming.glob("*/*.dcm"))
    with running(command, tmp_path / "log", env=variables) as process:
        wait_for(lambda: is_open(port), process)
        assert list(incoming.glob("*/*.dcm")) == []
        assert send(port, CT).returncode == 0
        assert len(landed(settings)) == 1
        process.terminate()
        assert process.wait(timeout=30) == 0
    said = (tmp_path / "log").read_text()
    assert "1 new" in said
    assert "1.3.6.1.4.1.5962" not in said


def test_more_associations_than_allowed_are_told_to_come_later(config: PacsConfig, settings: Settings) -> None:
    settings.landing.mkdir(parents=True)
    with listening(replace(config, ae=replace(config.ae, associations=1)), settings) as port, half_an_object(port):
        refused = dcmtk("echoscu", "-v", "-aet", "MODALITY", "-aec", "PIPELINE", "127.0.0.1", str(port))
        assert "Rejected Transient" in refused.stdout + refused.stderr


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path)


def test_with_tls_only_who_has_a_certificate_gets_in(
    config: PacsConfig, settings: Settings, certificates: Certificates
) -> None:
    settings.landing.mkdir(parents=True)
    secured = replace(config, ae=replace(config.ae, tls=certificates.own))
    with listening(secured, settings) as port:
        silent = socket.create_connection(("127.0.0.1", port))  # shakes no hands: it must not hold up the others
        end = ["-aet", "MODALITY", "-aec", "PIPELINE", "127.0.0.1", str(port), CT]
        believe = ["+cf", certificates.own.authorities]
        peer, stranger = certificates.peer, certificates.stranger
        assert dcmtk("storescu", *end).returncode != 0
        assert dcmtk("storescu", "+tla", *believe, *end).returncode != 0
        assert dcmtk("storescu", "+tls", stranger.key, stranger.certificate, *believe, *end).returncode != 0
        assert landed(settings) == []
        with_certificate = dcmtk("storescu", "+tls", peer.key, peer.certificate, *believe, *end)
        assert with_certificate.returncode == 0, with_certificate.stderr
        silent.close()
    assert len(landed(settings)) == 1


def test_a_peer_with_tls_is_called_with_tls_and_must_be_who_it_says(
    config: PacsConfig, settings: Settings, certificates: Certificates
) -> None:
    settings.landing.mkdir(parents=True)
    secured = replace(config, ae=replace(config.ae, tls=certificates.own))
    with listening(secured, settings) as port:
        us = replace(config.ae, title="MODALITY", tls=certificates.peer)
        peer = Peer("far", PeerKind.DIMSE, ae_title="PIPELINE", host="127.0.0.1", port=port, tls=True)
        reach(us, peer)
        with pytest.raises(TransientError, match="is silent"):
            reach(us, replace(peer, tls_name="another.example"))
        with pytest.raises(ConfigurationError, match="ae, tls"):
            reach(replace(us, tls=None), peer)


def test_a_private_key_that_others_can_read_is_refused(
    config: PacsConfig, settings: Settings, certificates: Certificates
) -> None:
    settings.landing.mkdir(parents=True)
    certificates.own.key.chmod(0o644)
    secured = replace(config, ae=replace(config.ae, tls=certificates.own))
    with pytest.raises(ConfigurationError, match="chmod 600"), listening(secured, settings):
        pass


def test_without_a_sender_there_is_nothing_to_listen_for(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="nobody may send"), listening(PacsConfig(), settings):
        pass


def test_a_port_that_is_taken_is_said(config: PacsConfig, port: int, settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="host and port"), listening(config, settings):
        pass


def test_nothing_of_an_object_is_logged(port: int, settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    assert send(port, *MIXED).returncode == 0
    shutil.rmtree(settings.landing)
    send(port, CT)
    wait_for(lambda: "turned away" in caplog.text)
    for path in MIXED:
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        secrets = (ds.SOPInstanceUID, ds.StudyInstanceUID, str(ds.PatientName), ds.PatientID)
        assert not [secret for secret in secrets if secret and secret in caplog.text]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_object(tmp_path: Path, settings: Settings) -> None:
    settings.landing.mkdir(parents=True)
    port = free_port()
    pacs = tmp_path / "pacs.yaml"
    pacs.write_text(
        f"ae: {{port: {port}, free_bytes: 0}}\n"
        "peers: [{name: modality, kind: dimse, ae_title: MODALITY, host: 127.0.0.1, source: landing}]\n"
    )
    ds = pydicom.dcmread(CT)
    ds.Rows, ds.Columns, ds.NumberOfFrames, ds.PixelData = 4096, 4096, 8, bytes(2 * 8 * 4096 * 4096)
    ds.save_as(tmp_path / "large.dcm")
    command = [sys.executable, "-m", "imaging_pipeline.cli", "pacs", "listen"]
    variables = os.environ | environment(settings.home, PACS=str(pacs))
    with running(command, tmp_path / "log", env=variables) as process:
        wait_for(lambda: is_open(port), process)
        assert send(port, CT).returncode == 0
        before = peak_bytes(process.pid)
        assert send(port, tmp_path / "large.dcm").returncode == 0
        assert len(landed(settings)) == 2
        assert peak_bytes(process.pid) - before < 32 << 20


def peak_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def test_two_folders_of_two_peers_stay_apart(config: PacsConfig, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "sources.yaml").write_text("sources: [{name: a, location: a}, {name: b, location: b}]")
    settings = Settings.from_environment(environment(tmp_path / "home", SOURCES=str(tmp_path / "sources.yaml")))
    peers = (replace(MODALITY, source="a"), replace(MODALITY, name="second", source="b", ae_title="SECOND"))
    with listening(replace(config, peers=peers), settings) as port:
        assert send(port, CT).returncode == 0
        assert send(port, CT, title="SECOND").returncode == 0
    assert [len(list((tmp_path / name).rglob("*.dcm"))) for name in ("a", "b")] == [1, 1]
