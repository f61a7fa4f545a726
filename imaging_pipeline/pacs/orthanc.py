"""Following an Orthanc: its log of changes names each new instance, whose file is fetched as it is stored.

Owns the cursor's meaning: the number of the last change whose instance has landed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from imaging_pipeline.errors import PoisonInput, TransientError
from imaging_pipeline.pacs.config import Peer
from imaging_pipeline.pacs.http import BLOCK, Unanswered, answer, open_client
from imaging_pipeline.pacs.landing import Landing

PAGE = 500
"""Changes or instances asked for at once."""


@dataclass(slots=True)
class Followed:
    """What one look at an Orthanc gave.

    Attributes:
        new: instances that landed.
        known: instances that had landed before.
        refused: files that are no DICOM object with its UIDs.
        gone: instances that were deleted there before they could be fetched.
        is_complete: nothing is left; otherwise it was told to stop.
    """

    new: int = 0
    known: int = 0
    refused: int = 0
    gone: int = 0
    is_complete: bool = False

    def __str__(self) -> str:
        said = f"{self.new} instances are new, {self.known} were here, {self.refused} are no DICOM objects"
        said += f", {self.gone} were deleted there" if self.gone else ""
        return said if self.is_complete else f"{said}; the rest waits for the next round"


def follow(
    peer: Peer,
    landing: Landing,
    cursor: int | None,
    save: Callable[[int], None],
    may_go_on: Callable[[], bool],
) -> Followed:
    """Fetch what is new since a cursor.

    The first time, and when the log has been emptied or belongs to another database, all instances are listed and those
    that never landed are fetched; the log is read from where it stood before that, so that nothing is missed between.

    Args:
        peer: Orthanc's REST API.
        landing: where files land.
        cursor: the last that was saved, or None.
        save: keeps a cursor; called when everything up to it has landed.
        may_go_on: asked before each page.

    Raises:
        ConfigurationError: it does not let us in.
        TransientError: it does not answer, or there is no room; the next look goes on from the saved cursor.
    """
    followed = Followed()
    with open_client(peer) as client:
        orthanc = _Orthanc(client, peer, landing, followed)
        if cursor is None or orthanc.has_lost(cursor):
            last, landed = orthanc.last_change(), -1
            while landed != followed.new:  # what is deleted there meanwhile moves others to pages that have been read
                landed = followed.new
                for identifiers in orthanc.instances_not_here():
                    orthanc.fetch(identifiers)
                    if not may_go_on():
                        return followed
            save(last)
            cursor = last
        while may_go_on():
            upto, identifiers, is_done = orthanc.changes(cursor)
            orthanc.fetch(identifiers)
            save(upto)
            cursor = upto
            if is_done:
                followed.is_complete = True
                break
    return followed


class _Orthanc:
    """The REST API, as far as it is needed (book.orthanc-server.com, "REST API")."""

    def __init__(self, client: httpx.Client, peer: Peer, landing: Landing, followed: Followed) -> None:
        self._client, self._peer, self._landing, self._followed = client, peer, landing, followed

    def last_change(self) -> int:
        """The number of the last change there ever was."""
        return int(self._get("/changes", last="")["Last"])

    def has_lost(self, cursor: int) -> bool:
        """Whether changes behind the cursor may be gone: the log was emptied, or is another database's.

        Changes go with the instances they are about, so a number that is missing says nothing; a log that begins behind
        the cursor does.
        """
        last, first = self.last_change(), self._get("/changes", since=0, limit=1)["Changes"]
        return last < cursor or (int(first[0]["Seq"]) if first else last + 1) > cursor + 1

    def changes(self, since: int) -> tuple[int, list[str], bool]:
        """The number of the last change of the next page, its new instances, and whether it is the last page."""
        page = self._get("/changes", since=since, limit=PAGE)
        found = page["Changes"]
        new = [str(change["ID"]) for change in found if change["ChangeType"] == "NewInstance"]
        return (int(found[-1]["Seq"]) if found else since), new, bool(page["Done"])

    def instances_not_here(self) -> Iterator[list[str]]:
        """Identifiers of all instances that have not landed, page by page; the log has those that come meanwhile."""
        first = 0
        while page := self._get("/instances", since=first, limit=PAGE, expand=""):
            tags = ((str(found["ID"]), str(found["MainDicomTags"].get("SOPInstanceUID", ""))) for found in page)
            yield [identifier for identifier, uid in tags if not self._landing.holds(uid)]
            first += len(page)

    def fetch(self, identifiers: list[str]) -> None:
        """Let instances land; those that are gone are passed over."""
        for identifier in identifiers:
            self._landing.refuse_when_full()
            part = self._landing.part()
            try:
                with part.open("wb") as stream:
                    self._download(identifier, stream.write)
                landed = self._landing.keep(part)
            except Unanswered as error:
                if error.status != 404 or not self._is_gone(identifier):
                    raise
                self._followed.gone += 1
            except PoisonInput:
                self._followed.refused += 1
            except OSError as error:
                raise TransientError(f"an object cannot be written to the landing folder ({error.strerror})") from None
            else:
                self._followed.new += landed.is_new
                self._followed.known += not landed.is_new
            finally:
                part.unlink(missing_ok=True)

    def _is_gone(self, identifier: str) -> bool:
        """Whether Orthanc itself says so: something before it answers 404, too, and so does one that cannot read."""
        self._get("/system")
        try:
            self._get(f"/instances/{identifier}")
        except Unanswered as error:
            return error.status == 404
        return False

    def _download(self, identifier: str, write: Callable[[bytes], int]) -> None:
        path = f"/instances/{identifier}/file"
        with answer(self._client, self._peer, path, accept="application/dicom") as response:
            for block in response.iter_bytes(BLOCK):
                write(block)

    def _get(self, path: str, **params: int | str) -> Any:
        with answer(self._client, self._peer, path, accept="application/json", **params) as response:
            try:
                return json.loads(response.read())
            except ValueError:
                raise TransientError(f"peer {self._peer.name!r} does not speak Orthanc's language") from None
