"""A folder of identified objects → a folder of de-identified ones, with evidence; no lake and no Dagster.

Owns the two passes: all headers are read first, for the identifiers of each patient, then each object is released or
held. Names in the output are made of pseudonyms. The same engine works here as on the way through the lakes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from imaging_pipeline.catalog.inspection import OUT_OF_REACH
from imaging_pipeline.deid.engine import IMPLEMENTATION_CLASS_UID, Deidentified, Deidentifier
from imaging_pipeline.deid.evidence import Evidence, collect, run_of, write_tables
from imaging_pipeline.deid.evidence_page import write_page
from imaging_pipeline.deid.inputs import Item, list_inputs
from imaging_pipeline.deid.options import UIDS
from imaging_pipeline.deid.outcomes import Outcome, Verdict, numbers_in, outcome_of, refused, value_tokens
from imaging_pipeline.deid.pixels import Decisions
from imaging_pipeline.deid.profile import Profile
from imaging_pipeline.deid.pseudonyms import ProjectKeys
from imaging_pipeline.deid.releaser import CODE_VERSION, OBJECTS_PER_CHUNK
from imaging_pipeline.deid.screen import Identifier
from imaging_pipeline.deid.staging import EVIDENCE, Staging, refuse_foreign, staged
from imaging_pipeline.deid.survey import Looked, Survey, read_item, survey
from imaging_pipeline.deid.vault import CrosswalkEntry, Vault, crosswalk_of
from imaging_pipeline.errors import ConfigurationError, PoisonInput, Reason
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.objects.writing import write_atomically
from imaging_pipeline.workers import map_chunks

_NOT_JUDGED: Final = (*OUT_OF_REACH, Reason.CHANGED_WHILE_READ, Reason.TOO_LARGE)

Progress = Callable[[str, int, int], None]
"""Told the step, how many objects are done, and how many there are."""


@dataclass(frozen=True, slots=True)
class Work:
    """One object of the second pass.

    Attributes:
        item: the object.
        sha256: digest of the bytes that were looked at.
        known: identifiers of its patient.
        depends_on: changes with anything that the result depends on.
    """

    item: Item
    sha256: str
    known: frozenset[Identifier] = field(repr=False)
    depends_on: str


@dataclass(slots=True)
class Made:
    """What the second pass gave for some objects, and what the vault must keep of it."""

    outcomes: list[tuple[str, Outcome]] = field(default_factory=list)
    crosswalk: list[CrosswalkEntry] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FolderReleaser:
    """What a worker needs; picklable.

    Attributes:
        profile: the de-identification profile.
        keys: the project's keys.
        decisions: what people decided about pixels.
        reader: reads the originals.
    """

    profile: Profile
    keys: ProjectKeys
    decisions: Decisions = field(default_factory=Decisions)
    reader: ObjectReader = field(default_factory=ObjectReader)

    def release(self, folder: Path, works: Sequence[Work]) -> Made:
        """De-identify some objects into a folder."""
        engine = Deidentifier(self.profile, self.keys, self.decisions)
        made = Made()
        for work in works:
            try:
                released = self._deidentified(engine, work)
                outcome = self._written(folder, work, released)
                made.crosswalk.extend(crosswalk_of(released))
            except PoisonInput as refusal:
                verdict = Verdict.FAILED if refusal.reason in _NOT_JUDGED else Verdict.HELD
                outcome = refused(work.item.token, refusal, verdict)
            made.outcomes.append((work.depends_on, outcome))
        return made

    def crashed(self, work: Work) -> Made:
        """The result for an object whose de-identification killed the process."""
        refusal = PoisonInput(Reason.WORKER_CRASHED, "de-identifying it killed the process")
        return Made([(work.depends_on, refused(work.item.token, refusal, Verdict.HELD))])

    def _deidentified(self, engine: Deidentifier, work: Work) -> Deidentified:
        data, sha256 = read_item(self.reader, work.item)
        if sha256 != work.sha256:
            raise PoisonInput(Reason.CHANGED_WHILE_READ, "its bytes are not those that were looked at first")
        return engine.deidentify(data, patient_domain=work.item.target.source, known=work.known)

    def _written(self, folder: Path, work: Work, released: Deidentified) -> Outcome:
        outcome = outcome_of(work.item.token, released)
        write_atomically(folder / outcome.file, released.data)
        return replace(outcome, numbers=tuple(sorted(value_tokens(self.keys, numbers_in(released.header.json)))))


def run_folder(
    location: str,
    out: Path,
    releaser: FolderReleaser,
    *,
    patient_domain: str,
    vault: Vault | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> Evidence:
    """Release what may be released of a folder, zip archive or other source into ``out``, with evidence.

    What is stopped goes on when it is run again; ``out`` is replaced by the whole result at the end, or stays as it is.

    Args:
        location: a folder, zip archive, file, DICOMDIR, manifest, or s3://bucket/prefix.
        out: a folder that is new, empty, or holds an earlier release of the same project and key.
        releaser: profile, keys and reader.
        patient_domain: who gave Patient IDs their meaning, where objects do not say it; letters, digits, underscores.
        vault: keeps what pseudonyms stand for; None: nothing does.
        workers: processes.
        progress: told how far each step is.

    Raises:
        ConfigurationError: the places cannot be used, there is nothing to read, or two patients share a pseudonym.
        TransientError: a disk or store does not answer.
    """
    run = run_of(releaser.profile, releaser.keys, releaser.decisions, CODE_VERSION)
    refuse_foreign(out, run)
    inputs = list_inputs(location, out, releaser.keys, releaser.reader, patient_domain)
    if not inputs.items and not inputs.outcomes:
        raise ConfigurationError("there is nothing to de-identify at the input: is it the right place?")
    kept_in = str(vault.path.absolute()) if vault else ""
    decided_by = run | {"inputs": releaser.keys.token("inputs", patient_domain, kept_in)}
    with staged(out, decided_by) as staging:
        reading = partial(progress, "read headers") if progress else None
        seen = survey(inputs.items, releaser.reader, workers=workers, progress=reading)
        works, settled, copies = _works(seen, releaser)
        made = _make(works, releaser, staging, vault, workers, progress)
        made = _screened(made, seen, releaser, staging.folder)
        outcomes = [*inputs.outcomes, *settled, *made.values(), *_of_copies(copies, made)]
        evidence = collect(run, outcomes, inputs.passed_over)
        if not evidence.is_closed or len(outcomes) != len(inputs.items) + len(inputs.outcomes):
            raise AssertionError("the counts of the evidence do not close")
        staging.keep_only({outcome.file for outcome in made.values()})
        write_tables(staging.folder / EVIDENCE, evidence)
        write_page(staging.folder / EVIDENCE / "index.html", evidence)
    return evidence


def _works(seen: Survey, releaser: FolderReleaser) -> tuple[list[Work], list[Outcome], dict[str, list[str]]]:
    """What is to be released, what is decided already, and copies: tokens of objects by that of the one they equal."""
    settled = list(seen.settled)
    known = seen.patients.identifiers(releaser.profile)
    digests = {patient: _digest(releaser.keys, found) for patient, found in known.items()}
    shared = _shared_pseudonyms(known, releaser)
    works: list[Work] = []
    copies: dict[str, list[str]] = {}
    for found in seen.by_uid.values():
        group = sorted(found, key=lambda each: each.item.token)
        if len({each.sha256 for each in group}) > 1:
            settled += [_conflict(each) for each in group]
            continue
        first = group[0]
        patient = _patient(first)
        if patient in shared:
            settled += [_one_pseudonym(each) for each in group]
            continue
        depends_on = releaser.keys.token("work", first.item.token, first.sha256, digests[patient])
        works.append(Work(first.item, first.sha256, known[patient], depends_on))
        copies[first.item.token] = [each.item.token for each in group[1:]]
    # In the order of keyed tokens: neither file times nor rows keep an order of the source.
    return sorted(works, key=lambda work: work.item.token), settled, copies


def _make(
    works: Sequence[Work],
    releaser: FolderReleaser,
    staging: Staging,
    vault: Vault | None,
    workers: int,
    progress: Progress | None,
) -> dict[str, Outcome]:
    """Outcomes by token; what an earlier, stopped run has done is taken as it is."""
    found = {work.item.token: staging.done[work.depends_on] for work in works if work.depends_on in staging.done}
    due = [work for work in works if work.item.token not in found]
    task = _Task(releaser, staging.folder)
    for part in map_chunks(task.release, due, workers=workers, chunk_size=OBJECTS_PER_CHUNK, on_crash=releaser.crashed):
        if vault:
            vault.record(part.crosswalk)
        staging.record(part.outcomes)
        found |= {outcome.token: outcome for _, outcome in part.outcomes}
        if progress:
            progress("de-identify", len(found), len(works))
    return found


@dataclass(frozen=True, slots=True)
class _Task:
    releaser: FolderReleaser
    folder: Path

    def release(self, works: Sequence[Work]) -> Made:
        return self.releaser.release(self.folder, works)


def _screened(made: dict[str, Outcome], seen: Survey, releaser: FolderReleaser, folder: Path) -> dict[str, Outcome]:
    """Hold what has a UID or number of any patient of the run in it, and take its file away."""
    uids = set() if UIDS in releaser.profile.options else seen.uids - {IMPLEMENTATION_CLASS_UID}
    originals = value_tokens(releaser.keys, seen.numbers | uids)
    checked = dict(made)
    for token, outcome in made.items():
        if found := originals.intersection(outcome.numbers):
            (folder / outcome.file).unlink()
            message = f"{len(found)} identifier(s) of patients of this run are in its output"
            checked[token] = refused(token, PoisonInput(Reason.RESIDUAL_IDENTIFIER, message), Verdict.HELD)
    return checked


def _of_copies(copies: dict[str, list[str]], made: dict[str, Outcome]) -> Iterable[Outcome]:
    """Copies have the outcome of the object they equal; a released file is counted once."""
    for token, others in copies.items():
        outcome = made[token]
        for other in others:
            if outcome.verdict is Verdict.RELEASED:
                yield Outcome(
                    other, Verdict.RELEASED, str(Reason.DUPLICATE_CONTENT), "the same bytes as another object"
                )
            else:
                yield replace(outcome, token=other)


def _shared_pseudonyms(patients: Iterable[tuple[str, str]], releaser: FolderReleaser) -> set[tuple[str, str]]:
    """Patients of whom two would get one pseudonym: format-preserving ones of two domains can meet."""
    by_pseudonym: dict[str, list[tuple[str, str]]] = {}
    is_reversible = releaser.profile.identifiers == "ff1"
    for domain, original in patients:
        pseudonym = releaser.keys.patient_id(domain, original, reversible=is_reversible)
        by_pseudonym.setdefault(pseudonym, []).append((domain, original))
    return {patient for group in by_pseudonym.values() if len(group) > 1 for patient in group}


def _one_pseudonym(looked: Looked) -> Outcome:
    message = "two patients would get one pseudonym: use keyed pseudonyms (identifiers: pseudonym in the profile)"
    return refused(looked.item.token, PoisonInput(Reason.NOT_DEIDENTIFIABLE, message), Verdict.HELD)


def _conflict(looked: Looked) -> Outcome:
    message = "other bytes have the same SOP Instance UID: take one of the objects out of the input"
    return refused(looked.item.token, PoisonInput(Reason.CONFLICT_CONTENT, message), Verdict.HELD)


def _patient(looked: Looked) -> tuple[str, str]:
    facts = looked.facts
    assert facts is not None  # only objects with facts become work
    return facts.domain, facts.patient_id


def _digest(keys: ProjectKeys, known: Iterable[Identifier]) -> str:
    return keys.token("known", *sorted(f"{found.kind} {found.text}" for found in known))
