"""The first pass of a folder run: every header, for what identifies each patient and which objects are the same.

Owns what is kept of the headers until the second pass. Writes nothing; what it holds is as secret as the headers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from imaging_pipeline.deid.inputs import Item
from imaging_pipeline.deid.known import HeaderFacts, Patients, facts_of
from imaging_pipeline.deid.outcomes import Outcome, Verdict, refused
from imaging_pipeline.deid.pseudonyms import is_standard_uid
from imaging_pipeline.dicom.header import read_header
from imaging_pipeline.errors import PoisonInput, Reason
from imaging_pipeline.objects.reading import MAX_OBJECT_BYTES, ObjectReader
from imaging_pipeline.workers import map_chunks

HEADERS_PER_CHUNK: Final = 64

_DIRECTORY: Final = '"00020002":{"vr":"UI","Value":["1.2.840.10008.1.3.10"]}'
"""Media Storage Directory (PS3.10 8) in a header."""
_NUMBERS: Final = frozenset({"00100020", "00101000", "00080050", "00380010"})
"""Patient ID, other ones, accession number, admission: looked for in the objects of all patients."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What became of one object in the first pass: what is in its header, or why it is not gone on with."""

    item: Item
    sha256: str = ""
    facts: HeaderFacts | None = None
    outcome: Outcome | None = None


@dataclass(slots=True)
class Survey:
    """All headers together.

    Attributes:
        patients: identifiers by patient.
        by_uid: objects by SOP Instance UID, without texts and UIDs.
        settled: outcomes of those that are not gone on with.
        numbers: Patient IDs, accession and admission numbers of all patients, in lower case.
        uids: all UIDs that the standard does not register.
    """

    patients: Patients = field(default_factory=Patients)
    by_uid: dict[str, list[Looked]] = field(default_factory=dict)
    settled: list[Outcome] = field(default_factory=list)
    numbers: set[str] = field(default_factory=set)
    uids: set[str] = field(default_factory=set)

    def add(self, looked: Looked) -> None:
        """Take in one object; what other objects say too is kept once."""
        facts = looked.facts
        if facts is None:
            self.settled += [looked.outcome] if looked.outcome else []
            return
        self.patients.add(facts)
        self.numbers.update(text.lower() for tag, _, text in facts.texts if tag in _NUMBERS)
        self.uids.update(uid for uid in facts.uids if not is_standard_uid(uid))
        brief = replace(looked, facts=replace(facts, texts=frozenset(), uids=frozenset()))
        self.by_uid.setdefault(facts.instance_uid, []).append(brief)


@dataclass(frozen=True, slots=True)
class HeaderLooker:
    """Reads headers in a worker; picklable."""

    reader: ObjectReader

    def look(self, items: Sequence[Item]) -> list[Looked]:
        """Read headers; what is no DICOM, or cannot be read, has failed."""
        return [self._looked(item) for item in items]

    def crashed(self, item: Item) -> list[Looked]:
        """The result for an object whose header killed the process."""
        refusal = PoisonInput(Reason.WORKER_CRASHED, "reading it killed the process")
        return [Looked(item, outcome=refused(item.token, refusal, Verdict.FAILED))]

    def _looked(self, item: Item) -> Looked:
        try:
            data, sha256 = read_item(self.reader, item)
            header = read_header(data)
            if _DIRECTORY in header.json:
                message = "a DICOMDIR names patients; make a new one for the released files"
                raise PoisonInput(Reason.SOP_CLASS_NOT_RELEASED, message)  # noqa: TRY301 - one way out for refusals
            return Looked(item, sha256, facts_of(header.json, item.target.source))
        except PoisonInput as refusal:
            is_held = refusal.reason in (Reason.SOP_CLASS_NOT_RELEASED, Reason.MISSING_UID)
            return Looked(item, outcome=refused(item.token, refusal, Verdict.HELD if is_held else Verdict.FAILED))


def survey(
    items: Sequence[Item], reader: ObjectReader, *, workers: int, progress: Callable[[int, int], None] | None = None
) -> Survey:
    """Read all headers.

    Args:
        items: the objects.
        reader: reads them.
        workers: processes.
        progress: told how many are done, and how many there are.
    """
    found, done, looker = Survey(), 0, HeaderLooker(reader)
    parts = map_chunks(looker.look, items, workers=workers, chunk_size=HEADERS_PER_CHUNK, on_crash=looker.crashed)
    for part in parts:
        for looked in part:
            found.add(looked)
        done += len(part)
        if progress:
            progress(done, len(items))
    return found


def read_item(reader: ObjectReader, item: Item) -> tuple[bytes, str]:
    """All bytes of an object, and their SHA-256.

    Raises:
        PoisonInput: TOO_LARGE, and what the reader raises.
    """
    if item.target.size > MAX_OBJECT_BYTES:
        raise PoisonInput(Reason.TOO_LARGE, f"larger than {MAX_OBJECT_BYTES:,} bytes")
    content = reader.read_content(item.target, keep=item.target.size)
    return content.prefix, content.sha256
