"""Deliveries to real archives: DCMTK's storescp and dcmqrscp, and Orthanc by C-STORE and by STOW-RS."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from imaging_pipeline.delivery.items import Item
from imaging_pipeline.delivery.log import DeliveryLog, State
from imaging_pipeline.delivery.peers import sender_to
from imaging_pipeline.delivery.sending import Passed, send_due
from imaging_pipeline.dicom.pixels import decode_frames
from imaging_pipeline.pacs.config import OwnAe, Peer, PeerKind, Tls
from imaging_pipeline_tests.delivery.peers import DELIVERY, item_of
from imaging_pipeline_tests.servers.pacs import dcmtk, free_port, is_open, require, running, running_orthanc, wait_for

pytestmark = pytest.mark.slow

FILES = (
    "CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm", "SC_rgb_rle.dcm", "JPGLosslessP14SV1_1s_1f_8b.dcm",
    "693_J2KR.dcm", "test-SR.dcm", "liver_1frame.dcm", "US1_J2KR.dcm",
)  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Real files of many kinds and transfer syntaxes, each with its own UID."""
    folder = tmp_path / "files"
    folder.mkdir()
    copies = []
    for name in FILES:
        source = get_testdata_file(name, download=False)
        if source is not None:
            shutil.copyfile(str(source), folder / name)
            copies.append(folder / name)
    assert len(copies) > 5
    return copies


def send(
    folder: Path, items: list[Item], peer: Peer, *, ae: OwnAe | None = None, later: timedelta = timedelta()
) -> Passed:
    with DeliveryLog(folder / "deliveries.sqlite") as log:
        return send_due(
            DELIVERY, items, log, lambda: sender_to(ae or OwnAe(), peer), clock=lambda: datetime.now(UTC) + later
        )


def states(folder: Path) -> dict[State, int]:
    with DeliveryLog(folder / "deliveries.sqlite") as log:
        found = [entry.state for entry in log.entries()]
    return {state: found.count(state) for state in set(found)}


def dimse(port: int, title: str = "ARCHIVE", **more: object) -> Peer:
    return Peer("archive", PeerKind.DIMSE, ae_title=title, host="127.0.0.1", port=port, timeout_seconds=20, **more)  # type: ignore[arg-type]


@contextmanager
def storescp(folder: Path, *options: str, port: int = 0) -> Iterator[int]:
    """DCMTK's receiver; its files are in ``folder``."""
    require("storescp")
    folder.mkdir(exist_ok=True)
    port = port or free_port()
    with running(["storescp", *options, "-od", str(folder), str(port)], folder.with_suffix(".log")) as process:
        wait_for(lambda: is_open(port), process)
        yield port


def pixels(path: Path) -> list[np.ndarray]:
    return [frame.stored for frame in decode_frames(path.read_bytes())]


def test_storescp_gets_every_kind_of_object_in_its_own_transfer_syntax(tmp_path: Path, files: list[Path]) -> None:
    items = [item_of(path) for path in files]
    with storescp(tmp_path / "got", "+xa", "+B") as port:  # it writes what it reads, bit by bit
        passed = send(tmp_path, items, dimse(port))
    assert (passed.accepted, passed.waiting) == (len(items), 0)
    got = {ds.SOPInstanceUID: ds for ds in map(pydicom.dcmread, (tmp_path / "got").iterdir())}
    for path, item in zip(files, items, strict=True):
        ds = got[item.sop_uid]
        assert ds.file_meta.TransferSyntaxUID == item.syntax_uid
        assert ds == pydicom.dcmread(path)


def test_a_receiver_of_implicit_little_endian_only_gets_the_same_pixels(tmp_path: Path, files: list[Path]) -> None:
    items = [item_of(path) for path in files]
    with storescp(tmp_path / "got", "+xi") as port:
        passed = send(tmp_path, items, dimse(port))
    assert (passed.accepted, passed.waiting) == (len(items), 0)
    got = {pydicom.dcmread(path).SOPInstanceUID: path for path in (tmp_path / "got").iterdir()}
    for path, item in zip(files, items, strict=True):
        sent = got[item.sop_uid]
        assert pydicom.dcmread(sent).file_meta.TransferSyntaxUID == "1.2.840.10008.1.2"
        if "PixelData" in pydicom.dcmread(path):
            for mine, theirs in zip(pixels(path), pixels(sent), strict=True):
                assert np.abs(mine.astype(int) - theirs.astype(int)).max() <= (1 if mine.ndim == 3 else 0)


def test_a_receiver_that_is_killed_gets_the_rest_when_it_is_back(tmp_path: Path, files: list[Path]) -> None:
    items, port, got = [item_of(path) for path in files], free_port(), tmp_path / "got"
    with ThreadPoolExecutor(1) as pool:
        with storescp(got, "+xa", "--sleep-after", "1", port=port):
            sending = pool.submit(send, tmp_path, items, dimse(port))
            wait_for(lambda: len(list(got.iterdir())) >= 2)
        assert sending.result(timeout=60).failure
    with storescp(got, "+xa", port=port):
        for minutes in (2, 5):
            send(tmp_path, items, dimse(port), later=timedelta(minutes=minutes))
    assert states(tmp_path) == {State.ACCEPTED: len(items)}
    assert {str(pydicom.dcmread(path).SOPInstanceUID) for path in got.iterdir()} == {item.sop_uid for item in items}


def test_a_receiver_that_aborts_while_it_stores_is_asked_again_later(tmp_path: Path, files: list[Path]) -> None:
    items = [item_of(path) for path in files[:3]]
    with storescp(tmp_path / "bad", "+xa", "--abort-during") as port:
        assert send(tmp_path, items, dimse(port)).failure
    with storescp(tmp_path / "got", "+xa", port=port):
        send(tmp_path, items, dimse(port), later=timedelta(minutes=2))
        send(tmp_path, items, dimse(port), later=timedelta(minutes=5))
    assert states(tmp_path) == {State.ACCEPTED: 3}
    assert len(list((tmp_path / "got").iterdir())) == 3


def test_dcmqrscp_is_asked_what_it_has_after_a_broken_delivery(tmp_path: Path, files: list[Path]) -> None:
    require("dcmqrscp")
    store, port = tmp_path / "store", free_port()
    store.mkdir()
    (tmp_path / "dcmqrscp.cfg").write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 4\nHostTable BEGIN\nHostTable END\n"
        f"VendorTable BEGIN\nVendorTable END\nAETable BEGIN\nARCHIVE {store} RW (200, 1024mb) ANY\nAETable END\n"
    )
    items = [item_of(path) for path in files[:3]]
    with running(["dcmqrscp", "-c", str(tmp_path / "dcmqrscp.cfg")], tmp_path / "log") as process:
        wait_for(lambda: is_open(port), process)
        assert send(tmp_path, items[:2], dimse(port)).accepted == 2
        with DeliveryLog(tmp_path / "deliveries.sqlite") as log:  # as a process leaves it that was killed
            log.begin("archive", "to_archive", items, datetime.now(UTC))
        with DeliveryLog(tmp_path / "deliveries.sqlite") as log:
            under_way = [entry for entry in log.entries() if entry.state is State.UNDER_WAY]
        assert len(under_way) == 3
        passed = send(tmp_path, items, dimse(port))
    assert (passed.settled, passed.accepted, passed.waiting) == (3, 1, 0)
    with DeliveryLog(tmp_path / "deliveries.sqlite") as log:
        assert sorted(entry.code for entry in log.entries()) == ["0000", "found_there", "found_there"]


def test_orthanc_gets_each_object_once_by_c_store_and_by_stow(tmp_path: Path, files: list[Path]) -> None:
    items = [item_of(path) for path in files]
    with running_orthanc(tmp_path / "orthanc") as orthanc:
        for peer in (
            dimse(orthanc.dicom_port, "ORTHANC"),
            Peer("archive", PeerKind.DICOMWEB, url=orthanc.dicomweb_url),
        ):
            folder = tmp_path / peer.kind
            folder.mkdir()
            first, second = send(folder, items, peer), send(folder, items, peer)
            assert (first.accepted, first.waiting, second.accepted) == (len(items), 0, 0)
            held = orthanc.call("GET", "/instances?expand")
            assert {each["MainDicomTags"]["SOPInstanceUID"] for each in held} == {item.sop_uid for item in items}
            with sender_to(OwnAe(), peer) as sender, DeliveryLog(folder / "deliveries.sqlite") as log:
                assert sender.held(log.entries()) == {item.key("archive"): True for item in items}
            for each in orthanc.call("GET", "/instances"):
                orthanc.call("DELETE", f"/instances/{each}")
            with sender_to(OwnAe(), peer) as sender, DeliveryLog(folder / "deliveries.sqlite") as log:
                assert sender.held(log.entries()) == {item.key("archive"): False for item in items}


def test_a_delivery_over_tls_shows_our_certificate_and_checks_theirs(tmp_path: Path, files: list[Path]) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    os.chmod(key, 0o600)  # noqa: PTH101
    items = [item_of(path) for path in files[:2]]
    options = ("+xa", "+tls", str(key), str(certificate), "+cf", str(certificate), "-rc")
    with storescp(tmp_path / "got", *options) as port:
        ours = OwnAe(tls=Tls(certificate, key, certificate))
        passed = send(tmp_path, items, dimse(port, tls=True), ae=ours)
    assert (passed.accepted, passed.waiting) == (2, 0)


def test_dcmtk_reads_what_was_sent(tmp_path: Path, files: list[Path]) -> None:
    with storescp(tmp_path / "got", "+xi") as port:
        send(tmp_path, [item_of(path) for path in files], dimse(port))
    for path in (tmp_path / "got").iterdir():
        assert dcmtk("dcmdump", "-q", "+P", "0008,0018", path).returncode == 0
