"""A peer in this process that stores what it is sent by C-STORE, and can be told to misbehave."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, AllStoragePresentationContexts, _config, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from imaging_pipeline.delivery.items import Item
from imaging_pipeline.objects.folder import path_to_uri
from imaging_pipeline.objects.model import key_of
from imaging_pipeline.pacs.config import Delivery, Peer, PeerKind, What
from imaging_pipeline_tests.servers.pacs import free_port

PLAIN = [str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian)]

DELIVERY = Delivery("to_archive", "archive", What.RELEASED)


def item_of(path: Path) -> Item:
    """A file as something to be sent."""
    ds, data = dcmread(path, stop_before_pixels=True), path.read_bytes()
    return Item(
        instance_key=key_of(ds.SOPInstanceUID),
        study_uid=ds.StudyInstanceUID,
        series_uid=ds.SeriesInstanceUID,
        sop_uid=ds.SOPInstanceUID,
        sop_class_uid=ds.SOPClassUID,
        syntax_uid=ds.file_meta.TransferSyntaxUID,
        uri=path_to_uri(path),
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
    )


@dataclass
class Archive:
    """What an in-process peer has, and how it behaves.

    Attributes:
        peer: how to reach it.
        stored: data sets in the order they came, with their transfer syntaxes.
        statuses: answers by the number of the object, from 0; others are stored.
        breaks_at: the number of the object at which it breaks the connection: after it was stored.
        loses_at: the same, before it was stored.
        came: how many objects came, whatever became of them.
        delay_seconds: it takes to store one.
        last: the last data set, or a file that ends with it.
    """

    peer: Peer
    stored: list[tuple[str, str]] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    breaks_at: int | None = None
    loses_at: int | None = None
    came: int = 0
    delay_seconds: float = 0.0
    last: bytes = b""

    @property
    def uids(self) -> list[str]:
        return [uid for uid, _ in self.stored]

    def store(self, event: evt.Event) -> int:
        number, self.came = self.came, self.came + 1
        time.sleep(self.delay_seconds)
        if number == self.loses_at:
            event.assoc.abort()
            return 0xC000
        if number in self.statuses:
            return self.statuses[number]
        is_in_file = _config.STORE_RECV_CHUNKED_DATASET  # a switch of the process, which the code under test sets
        self.last = event.dataset_path.read_bytes() if is_in_file else event.encoded_dataset(include_meta=False)
        self.stored.append((str(event.request.AffectedSOPInstanceUID), str(event.context.transfer_syntax)))
        if number == self.breaks_at:
            event.assoc.abort()
        return 0

    def find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        if event.identifier.SOPInstanceUID in self.uids:
            yield 0xFF00, event.identifier


@contextmanager
def archive(
    port: int = 0, *, syntaxes: list[str] | None = None, finds: bool = True, classes: Callable[[str], bool] = bool
) -> Iterator[Archive]:
    """A running peer.

    Args:
        port: where; 0: a free one.
        syntaxes: transfer syntaxes it takes.
        finds: it answers C-FIND.
        classes: SOP classes it takes.
    """
    port = port or free_port()
    here = Archive(Peer("archive", PeerKind.DIMSE, ae_title="ARCHIVE", host="127.0.0.1", port=port, timeout_seconds=5))
    entity = AE("ARCHIVE")
    for context in AllStoragePresentationContexts:
        if classes(str(context.abstract_syntax)):
            entity.add_supported_context(context.abstract_syntax, syntaxes or PLAIN)
    if finds:
        entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    handlers = [(evt.EVT_C_STORE, here.store), (evt.EVT_C_FIND, here.find)]
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    try:
        yield here
    finally:
        server.shutdown()
