"""Passes of a delivery against a peer that is really there: what it gets, and what the log says after faults."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import RLELossless
from pynetdicom import AllStoragePresentationContexts
from pynetdicom.dsutils import split_dataset

from imaging_pipeline.delivery.items import Item
from imaging_pipeline.delivery.log import DeliveryLog, State
from imaging_pipeline.delivery.peers import sender_to
from imaging_pipeline.delivery.sending import Passed, send_due
from imaging_pipeline.errors import ConfigurationError, TransientError
from imaging_pipeline.pacs.config import Delivery, OwnAe, Peer, PeerKind, What
from imaging_pipeline_tests.deid.corpus import ROOT, chest_film, encode
from imaging_pipeline_tests.delivery.peers import DELIVERY, archive, item_of
from imaging_pipeline_tests.servers.pacs import free_port, is_open, running, wait_for

CT = "1.2.840.10008.5.1.4.1.1.2"

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Sending:
    """A log, files to send, and a clock that stands until it is moved."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = DeliveryLog(folder / "deliveries.sqlite")
        self.now = START
        self.pauses: list[float] = []

    def films(self, count: int) -> list[Item]:
        items = []
        for number in range(count):
            path = self.folder / f"{number}.dcm"
            path.write_bytes(encode(chest_film(SOPInstanceUID=f"{ROOT}.9.{number}")))
            items.append(item_of(path))
        return items

    def changed(self, item: Item, description: str) -> Item:
        """Another content under the UID of a film."""
        path = self.folder / f"{item.sop_uid.rpartition('.')[2]}-{description}.dcm"
        path.write_bytes(encode(chest_film(SOPInstanceUID=item.sop_uid, StudyDescription=description)))
        return item_of(path)

    def send(self, items: list[Item], peer: Peer, delivery: Delivery = DELIVERY) -> Passed:
        return send_due(
            delivery,
            items,
            self.log,
            lambda: sender_to(OwnAe(), peer),
            clock=lambda: self.now,
            pause=self.pauses.append,
        )

    def states(self) -> dict[str, tuple[State, str]]:
        """State and answer by the last number of the UID."""
        return {entry.sop_uid.rpartition(".")[2]: (entry.state, entry.code) for entry in self.log.entries()}


@pytest.fixture
def here(tmp_path: Path) -> Sending:
    return Sending(tmp_path)


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """A peer in a process of its own that takes no CT and no compression; here a switch lets peers take everything."""
    port = free_port()
    command = [sys.executable, "-c", _STRICT, str(port), CT]
    with running(command, tmp_path_factory.mktemp("strict") / "log") as process:
        wait_for(lambda: is_open(port), process)
        yield Peer("strict", PeerKind.DIMSE, ae_title="ARCHIVE", host="127.0.0.1", port=port, timeout_seconds=20)


_STRICT = """
import sys, time
from imaging_pipeline_tests.delivery.peers import archive

with archive(int(sys.argv[1]), classes=lambda uid: uid != sys.argv[2]):
    time.sleep(600)
"""


def test_every_object_is_sent_once_however_often_the_delivery_is_made(here: Sending) -> None:
    items = here.films(3)
    with archive() as peer:
        first, second = here.send(items, peer.peer), here.send(items, peer.peer)
    assert (first.accepted, first.waiting, second.accepted, second.waiting) == (3, 0, 0, 0)
    assert peer.uids == [item.sop_uid for item in items]


def test_an_object_arrives_with_the_very_bytes_of_its_data_set(here: Sending) -> None:
    (item,) = here.films(1)
    with archive() as peer:
        here.send([item], peer.peer)
    _, offset = split_dataset(here.folder / "0.dcm")
    data_set = (here.folder / "0.dcm").read_bytes()[offset:]
    assert len(data_set) > 400
    assert peer.last.endswith(data_set)


def test_a_new_content_under_the_same_uid_is_sent_again(here: Sending) -> None:
    (item,) = here.films(1)
    with archive() as peer:
        here.send([item], peer.peer)
        again = here.send([here.changed(item, "AGAIN")], peer.peer)
    assert again.accepted == 1
    assert peer.uids == [item.sop_uid] * 2


def test_an_old_content_that_comes_back_replaces_the_new_one_and_is_sent_once(here: Sending) -> None:
    (old,) = here.films(1)
    with archive() as peer:
        for item in (old, here.changed(old, "AGAIN"), old):
            here.now += timedelta(minutes=1)
            assert here.send([item], peer.peer).accepted == 1
            assert here.send([item], peer.peer).accepted == 0
    assert peer.came == 3
    assert b"AGAIN" not in peer.last


def test_a_file_whose_bytes_are_not_those_of_its_row_does_not_leave(here: Sending) -> None:
    items = here.films(2)
    (here.folder / "0.dcm").write_bytes(b"something else")
    with archive() as peer:
        passed = here.send(items, peer.peer)
    assert peer.uids == [items[1].sop_uid]
    assert (passed.accepted, passed.refused) == (1, 1)
    assert here.states()["0"] == (State.REFUSED, "file_changed")


def test_what_a_full_peer_refuses_is_tried_again_after_waits_that_grow(here: Sending) -> None:
    (item,) = here.films(1)
    with archive() as peer:
        peer.statuses = {0: 0xA700, 1: 0xA700}
        assert here.send([item], peer.peer).refused == 1
        here.now += timedelta(seconds=59)
        assert here.send([item], peer.peer).refused == 0
        here.now += timedelta(seconds=1)
        assert here.send([item], peer.peer).refused == 1
        here.now += timedelta(seconds=119)
        assert here.send([item], peer.peer).accepted == 0
        here.now += timedelta(seconds=1)
        assert here.send([item], peer.peer).accepted == 1
    assert peer.came == 3


def test_what_a_peer_will_never_take_waits_for_a_person(here: Sending) -> None:
    items = here.films(2)
    with archive() as peer:
        peer.statuses = {0: 0xA900}
        assert here.send(items, peer.peer).accepted == 1
        here.now += timedelta(days=30)
        assert here.send(items, peer.peer).refused == 0
        assert here.states()["0"] == (State.REFUSED, "A900")
        here.log.try_again("archive")
        assert here.send(items, peer.peer).accepted == 1
    assert peer.came == 3


def test_an_object_that_is_refused_for_now_too_often_waits_for_a_person(here: Sending) -> None:
    (item,) = here.films(1)
    with archive() as peer:
        peer.statuses = dict.fromkeys(range(100), 0xA700)
        for _ in range(20):
            here.send([item], peer.peer)
            here.now += timedelta(hours=7)
    assert peer.came == 12
    assert here.states()["0"] == (State.REFUSED, "A700")


def test_a_peer_that_dies_in_the_middle_gets_the_rest_when_it_is_back_and_nothing_twice(here: Sending) -> None:
    items = here.films(5)
    with archive() as peer:
        peer.breaks_at = 2  # it has stored this one, and we do not hear of it
        first = here.send(items, peer.peer)
        assert (first.accepted, bool(first.failure)) == (2, True)
        assert here.send(items, peer.peer).failure.startswith("the peer failed before")
        assert peer.came == 3
        here.now += timedelta(minutes=1)
        second = here.send(items, peer.peer)
    assert (second.settled, second.accepted, second.waiting) == (1, 2, 0)
    assert peer.uids == [item.sop_uid for item in items]
    assert here.states()["2"] == (State.ACCEPTED, "found_there")


def test_what_was_lost_when_the_connection_broke_is_sent_again(here: Sending) -> None:
    items = here.films(3)
    with archive() as peer:
        peer.loses_at = 1
        assert here.send(items, peer.peer).accepted == 1
        here.now += timedelta(minutes=1)
        here.send(items, peer.peer)
        assert here.states()["1"][0] is State.WAITING  # it may be this object that breaks the peer: others come first
        here.now += timedelta(minutes=1)
        here.send(items, peer.peer)
    assert sorted(peer.uids) == sorted(item.sop_uid for item in items)
    assert {state for state, _ in here.states().values()} == {State.ACCEPTED}


def test_a_new_content_that_was_lost_is_not_taken_for_the_old_one_the_peer_has(here: Sending) -> None:
    (item,) = here.films(1)
    with archive() as peer:
        here.send([item], peer.peer)
        peer.loses_at = 1
        new = here.changed(item, "AGAIN")
        assert here.send([new], peer.peer).failure
        for _ in range(2):
            here.now += timedelta(minutes=1)
            passed = here.send([new], peer.peer)
    assert (passed.accepted, passed.waiting) == (1, 0)
    assert b"AGAIN" in peer.last


def test_a_peer_that_does_not_say_what_it_has_is_sent_the_open_objects_again(here: Sending) -> None:
    items = here.films(2)
    with archive(finds=False) as peer:
        peer.breaks_at = 0
        here.send(items, peer.peer)
        here.now += timedelta(minutes=1)
        here.send(items, peer.peer)
        here.now += timedelta(minutes=1)
        here.send(items, peer.peer)
    assert {state for state, _ in here.states().values()} == {State.ACCEPTED}
    assert set(peer.uids) == {item.sop_uid for item in items}


def test_a_peer_that_cannot_be_reached_is_left_alone_longer_each_time(here: Sending) -> None:
    (item,) = here.films(1)
    with archive() as gone:
        peer = gone.peer
    assert here.send([item], peer).failure
    assert here.log.rests_until("archive", here.now) == (START + timedelta(minutes=1)).replace(tzinfo=None)
    here.now += timedelta(minutes=1)
    here.send([item], peer)
    assert here.log.rests_until("archive", here.now) == (here.now + timedelta(minutes=2)).replace(tzinfo=None)
    here.now += timedelta(minutes=2)
    with archive(peer.port or 0) as back:
        assert here.send([item], back.peer).accepted == 1


def test_compressed_pixels_go_as_they_are_where_the_peer_takes_them_and_plain_where_not(
    here: Sending, strict: Peer
) -> None:
    (film,) = here.films(1)
    ds = pydicom.dcmread(here.folder / "0.dcm")
    ds.compress(RLELossless, generate_instance_uid=False)
    ds.save_as(here.folder / "0.dcm")
    packed = item_of(here.folder / "0.dcm")
    assert packed.sop_uid == film.sop_uid
    with archive() as modern:
        here.send([packed], modern.peer)
    assert modern.stored == [(film.sop_uid, str(RLELossless))]
    passed = here.send([packed], strict, Delivery("strict", "strict", What.RELEASED))
    assert passed.accepted == 1


def test_a_class_the_peer_does_not_take_is_refused_and_the_others_are_sent(here: Sending, strict: Peer) -> None:
    items = here.films(2)
    path = here.folder / "ct.dcm"
    path.write_bytes(encode(chest_film(SOPInstanceUID=f"{ROOT}.9.7", SOPClassUID=CT)))
    passed = here.send([*items, item_of(path)], strict)
    assert (passed.accepted, passed.refused) == (2, 1)
    assert here.states()["7"] == (State.REFUSED, "no_context")


def test_a_peer_that_takes_none_of_what_is_offered_is_no_peer_that_failed(here: Sending, strict: Peer) -> None:
    path = here.folder / "ct.dcm"
    path.write_bytes(encode(chest_film(SOPInstanceUID=f"{ROOT}.9.7", SOPClassUID=CT)))
    passed = here.send([item_of(path)], strict)
    assert (passed.refused, passed.failure) == (1, "")
    assert here.states()["7"] == (State.REFUSED, "no_context")


def test_a_pace_is_kept(here: Sending) -> None:
    items = here.films(4)
    with archive() as peer:
        here.send(items, peer.peer, Delivery("slow", "archive", What.RELEASED, objects_per_second=2.0))
    assert here.pauses == [0.5] * 3


def test_two_processes_do_not_send_to_one_peer_at_once(here: Sending) -> None:
    items = here.films(1)
    with archive() as peer, here.log.sending_to("archive"), pytest.raises(TransientError, match="another process"):
        send_due(DELIVERY, items, DeliveryLog(here.folder / "deliveries.sqlite"), lambda: sender_to(OwnAe(), peer.peer))
    assert not peer.uids


def test_more_kinds_of_objects_than_one_association_can_offer_are_all_sent(here: Sending) -> None:
    classes = sorted({str(context.abstract_syntax) for context in AllStoragePresentationContexts})[:70]
    for number, kind in enumerate(classes):  # two contexts for each: 140 where 128 fit
        path = here.folder / f"{number}.dcm"
        path.write_bytes(encode(chest_film(SOPInstanceUID=f"{ROOT}.9.{number}", SOPClassUID=kind)))
    with archive() as peer:
        passed = here.send([item_of(path) for path in here.folder.glob("*.dcm")], peer.peer)
    assert (passed.accepted, passed.waiting) == (70, 0)


def test_peers_of_other_kinds_are_not_sent_to(here: Sending) -> None:
    peer = Peer("archive", PeerKind.ORTHANC, url="http://127.0.0.1:9")
    with pytest.raises(ConfigurationError, match="kind dimse or dicomweb"):
        here.send(here.films(1), peer)


_SENDER = """
import sys
from pathlib import Path
from imaging_pipeline.delivery.log import DeliveryLog
from imaging_pipeline.delivery.peers import sender_to
from imaging_pipeline.delivery.sending import send_due
from imaging_pipeline.pacs.config import OwnAe, Peer, PeerKind
from imaging_pipeline_tests.delivery.peers import DELIVERY, item_of

folder = Path(sys.argv[1])
items = [item_of(path) for path in sorted(folder.glob("*.dcm"))]
peer = Peer("archive", PeerKind.DIMSE, ae_title="A", host="127.0.0.1", port=int(sys.argv[2]), timeout_seconds=5)
with DeliveryLog(folder / "deliveries.sqlite") as log:
    send_due(DELIVERY, items, log, lambda: sender_to(OwnAe(), peer))
"""


def test_a_sender_that_was_killed_is_followed_by_one_that_sends_the_rest_and_nothing_twice(here: Sending) -> None:
    here.films(9)
    with archive() as peer:
        peer.delay_seconds = 0.05
        command = [sys.executable, "-c", _SENDER, str(here.folder), str(peer.peer.port)]
        with running(command, here.folder / "log") as process:
            wait_for(lambda: peer.came >= 4, process)
        peer.delay_seconds = 0
        items = [item_of(path) for path in sorted(here.folder.glob("*.dcm"))]
        here.now = datetime.now(UTC)
        passed = here.send(items, peer.peer)
    assert passed.waiting == 0
    assert sorted(peer.uids) == sorted(item.sop_uid for item in items)
