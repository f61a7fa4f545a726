"""A batch of identified instances → de-identified files and rows in the research lake.

Each instance that is due is either released or held with an issue; nothing in between. Of one that was deleted, or
whose contents are in conflict, nothing stays. The rows come from the headers of the files written, so tables and files
cannot differ. Reads the identified lake, writes the research lake, the vault and the files.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa

from imaging_pipeline.catalog.bronze import stage_filter
from imaging_pipeline.catalog.inspection import issue_row
from imaging_pipeline.deid.evidence import run_of
from imaging_pipeline.deid.lake_evidence import (
    batch_evidence,
    held_outcome,
    kept_outcomes,
    unread_outcomes,
    write_evidence,
)
from imaging_pipeline.deid.leakage import count_leaks, leaks_by_object
from imaging_pipeline.deid.outcomes import Outcome
from imaging_pipeline.deid.pseudonyms import ProjectKeys
from imaging_pipeline.deid.releaser import CODE_VERSION, OBJECTS_PER_CHUNK, Releaser, Releases
from imaging_pipeline.deid.rows import write_rows
from imaging_pipeline.deid.targets import Plan, Target, plan_of, with_known
from imaging_pipeline.deid.vault import Vault
from imaging_pipeline.errors import ImagingError, Issue, Reason, Stage, TransientError
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.placing import StoredObject
from imaging_pipeline.metadata.silver import entity_rows
from imaging_pipeline.objects.folder import uri_to_path
from imaging_pipeline.workers import map_chunks

__all__ = ["CODE_VERSION", "ReleaseCounts", "ReleaseRefused", "Releaser", "release_batch", "release_counts"]


@dataclass(frozen=True, slots=True)
class ReleaseCounts:
    """What became of the instances that a batch had to release.

    Attributes:
        instances: to be released or held; a deleted one is neither.
        released: with a file and its proof; also those that could not be read now and keep what stands released.
        held: each with an issue.
        held_keys: research keys of those held and of those deleted: nothing of them stays on the research side.
        unreached: originals whose bytes could not be fetched, whether held or not; a later run may fare better.
    """

    instances: int
    released: int
    held: int
    held_keys: frozenset[str] = frozenset()
    unreached: int = 0

    @property
    def is_closed(self) -> bool:
        """Every instance was either released or held."""
        return self.instances == self.released + self.held


class ReleaseRefused(ImagingError):
    """Rows about to go to research hold an identifier: the batch is held whole and nothing new of it is written."""

    def __init__(self, leaks: Mapping[str, int]) -> None:
        super().__init__(f"identifiers in {', '.join(sorted(leaks))}: the batch is held, nothing was written")
        self.leaks = dict(leaks)


def release_batch(
    identified: Lake,
    research: Lake,
    vault: Vault,
    releaser: Releaser,
    *,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> ReleaseCounts:
    """Release what is current of a batch and take back what is not; run again, it leaves the same files and rows.

    What was deleted or is in conflict is taken back first, on its own: no later refusal can keep it released. Then the
    files are made, the crosswalk is written, and the rows last, as the two lakes are at that moment: another batch may
    have changed them meanwhile. Where another batch's object has taken the place of one of this batch, it is released
    in its place. An original that cannot be read now keeps what was released of the same content in the same way;
    anything else of it is held. Instances are taken in the order of their research keys: neither rows nor file times
    keep an order of the source.

    Raises:
        ReleaseRefused: the rows hold an identifier although the objects with one are held.
        TransientError: a lake is locked, a released file that is needed is gone, or most originals cannot be read.
            After this and the former nothing is released any more that is no longer current.
    """
    look = partial(plan_of, identified, research, releaser.keys, releaser.batch_id)
    _withdraw(research, releaser, look, also_superseded=False)
    try:
        plan = look()
        tried = with_known(identified, dict(sorted(plan.due.items())), releaser.profile)
        made = _make(list(tried.values()), vault, releaser, workers, progress)
        tables = _tables(identified, releaser, tried, made)
        unread = unread_outcomes(identified, releaser.keys, releaser.batch_id)
        settled = _write(research, releaser, look, tried, made, tables, unread)
    except ImagingError:
        _withdraw(research, releaser, look, also_superseded=True)
        raise
    finally:
        _empty(releaser.staging)
    conflicts = [_conflict(target) for target in plan.conflicts]
    objects = [target.version.key for target in (*tried.values(), *plan.conflicts)]
    _write_issues(identified, releaser.batch_id, conflicts + [made.held[key] for key in sorted(settled.held)], objects)
    return ReleaseCounts(
        instances=len(tried) + len(conflicts) - len(settled.outdated),
        released=len(settled.written | settled.kept),
        held=len(settled.held) + len(conflicts),
        held_keys=(plan.keys - plan.current.keys()) | settled.held,
        unreached=len(made.unreached),
    )


def release_counts(identified: Lake, research: Lake, keys: ProjectKeys, batch_id: str) -> ReleaseCounts:
    """The counts of a batch as the two lakes hold them; what was made of another content counts as not released."""
    plan = plan_of(identified, research, keys, batch_id)
    own = {key: target for key, target in plan.current.items() if target.arrival_batch == batch_id}
    conflicts = [target for target in plan.conflicts if target.arrival_batch == batch_id]
    ((held,),) = identified.rows(
        """SELECT count(DISTINCT object_key) FROM bronze.ingest_issue
        WHERE stage = 'DEID' AND object_key IN (SELECT unnest(?))""",
        [[target.version.key for target in (*own.values(), *conflicts)]],
    )
    return ReleaseCounts(len(own) + len(conflicts), sum(map(plan.is_released, own)), int(str(held)))


def _make(
    targets: Sequence[Target],
    vault: Vault,
    releaser: Releaser,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> Releases:
    total = Releases()
    for part in map_chunks(
        releaser.release, targets, workers=workers, chunk_size=OBJECTS_PER_CHUNK, on_crash=releaser.crashed
    ):
        vault.record(part.crosswalk)
        total.add(part)
        if progress:
            progress(len(part.stored) + len(part.held), len(targets))
    if len(total.unreached) * 2 > len(targets):
        raise TransientError(
            f"{len(total.unreached)} of {len(targets)} originals cannot be read: is the source reachable?"
        )
    return total


def _tables(
    identified: Lake, releaser: Releaser, tried: Mapping[str, Target], made: Releases
) -> Mapping[str, pa.Table]:
    """Rows of what was made. An object whose rows hold an identifier is held, so that the others are released."""
    tables = _rows(releaser, made.stored.values())
    if count_leaks(identified, tables, releaser.batch_id, releaser.profile):
        _hold_leaking(identified, releaser, tried, made)
        tables = _rows(releaser, made.stored.values())
        if leaks := count_leaks(identified, tables, releaser.batch_id, releaser.profile):
            raise ReleaseRefused(leaks)
    return tables


def _rows(releaser: Releaser, stored: Iterable[StoredObject]) -> Mapping[str, pa.Table]:
    rows = entity_rows(releaser.batch_id, stored)
    if rows.refused:
        raise AssertionError(f"{rows.refused} de-identified headers have no legal UIDs: the engine is broken")
    return rows.tables


def _hold_leaking(identified: Lake, releaser: Releaser, tried: Mapping[str, Target], made: Releases) -> None:
    """Take what leaks out of what was made; each object is looked at alone, which only a leaking batch pays for."""
    single = ((key, _rows(releaser, [stored])) for key, stored in made.stored.items())
    for key, leaks in leaks_by_object(identified, single, releaser.batch_id, releaser.profile).items():
        message = f"an identifier of the batch's patients is left in {', '.join(sorted(leaks))}: look at the original"
        issue = Issue(Reason.RESIDUAL_IDENTIFIER, Stage.DEID, message=message)
        made.held[key] = issue_row(tried[key].arrival_batch, tried[key].version.key, issue)
        del made.stored[key]


def _conflict(target: Target) -> dict[str, object]:
    message = (
        "other bytes have the same SOP Instance UID: take one of the objects out of its source, it is released then"
    )
    issue = Issue(Reason.CONFLICT_CONTENT, Stage.DEID, message=message)
    return issue_row(target.arrival_batch, target.version.key, issue)


Look = Callable[[], Plan]
"""Looks at the two lakes as they are now."""


@dataclass(frozen=True, slots=True)
class _Settled:
    """What becomes of the instances a run has tried, by research key.

    Attributes:
        written: released by this run.
        kept: not read now; what was released of them before stays.
        held: nothing of them may be released.
        outdated: another content has become current meanwhile, or another run has released the same.
    """

    written: frozenset[str]
    kept: frozenset[str]
    held: frozenset[str]
    outdated: frozenset[str]


def _settle(plan: Plan, tried: Mapping[str, Target], made: Releases, profile_digest: str) -> _Settled:
    due = plan.due
    valid = {key for key, target in tried.items() if key in due and due[key].source_token == target.source_token}
    kept = {key for key in valid & made.unreached if plan.is_up_to_date(key, profile_digest, CODE_VERSION)}
    written = valid & made.stored.keys()
    return _Settled(
        frozenset(written), frozenset(kept), frozenset(valid - written - kept), frozenset(tried.keys() - valid)
    )


def _write(
    research: Lake,
    releaser: Releaser,
    look: Look,
    tried: Mapping[str, Target],
    made: Releases,
    tables: Mapping[str, pa.Table],
    unread: Sequence[Outcome],
) -> _Settled:
    """Write what is still current and take back what is not, whichever batch released an earlier version.

    A kill in here is mended by running again: what is taken back loses its file before its row, and what is released
    has its file before its row.
    """
    batch_id = releaser.batch_id
    with research.transaction():
        plan = look()
        settled = _settle(plan, tried, made, releaser.profile.digest)
        if settled.written != made.stored.keys():
            tables = entity_rows(batch_id, [made.stored[key] for key in sorted(settled.written)]).tables
        withdrawn = plan.withdrawn | (settled.held & plan.released.keys())
        _remove(plan, withdrawn)
        for key in settled.written:
            _publish(releaser.staged(made.stored[key]), uri_to_path(made.stored[key].storage_uri))
        proofs = [made.verified[key] for key in sorted(settled.written)]
        write_rows(
            research,
            batch_id,
            tables,
            proofs,
            withdrawn,
            rewritten=batch_id,
            element_mode=releaser.element_mode,
        )
        outcomes = [*unread, *_outcomes(research, plan, tried, made, settled)]
        run = run_of(releaser.profile, releaser.keys, releaser.decisions, CODE_VERSION)
        write_evidence(research, batch_id, batch_evidence(research, run, outcomes))
        replaced = settled.written & plan.released.keys()
        _remove(plan, {key for key in replaced if plan.released[key].storage_uri != made.stored[key].storage_uri})
    return settled


def _outcomes(
    research: Lake, plan: Plan, tried: Mapping[str, Target], made: Releases, settled: _Settled
) -> list[Outcome]:
    """What evidence counts: one outcome for each instance that is released or held, whichever run released it."""
    held = [held_outcome(tried[key].source_token, made.held[key]) for key in sorted(settled.held)]
    conflicts = [held_outcome(target.source_token, _conflict(target)) for target in plan.conflicts]
    return (
        [made.outcomes[key] for key in sorted(settled.written)]
        + kept_outcomes(research, settled.kept)
        + held
        + conflicts
    )


def _withdraw(research: Lake, releaser: Releaser, look: Look, *, also_superseded: bool) -> None:
    """Take back what has no current version, or was made from another content than the current one."""

    def keys_of(plan: Plan) -> frozenset[str]:
        return plan.withdrawn | plan.superseded if also_superseded else plan.withdrawn

    if not keys_of(look()):
        return
    with research.transaction():
        plan = look()
        _remove(plan, keys_of(plan))
        tables = entity_rows(releaser.batch_id, []).tables
        write_rows(
            research,
            releaser.batch_id,
            tables,
            [],
            keys_of(plan),
            rewritten="",
            element_mode=releaser.element_mode,
        )
        write_evidence(research, releaser.batch_id, None)


def _write_issues(identified: Lake, batch_id: str, held: list[dict[str, object]], object_keys: list[str]) -> None:
    """Put the issues of this release in the place of earlier ones, of the batch and of all objects looked at."""
    issues = registry.table("ingest_issue").rows(held)
    where = f"{stage_filter([Stage.DEID])} AND (arrival_batch = ? OR object_key IN (SELECT unnest(?)))"
    with identified.transaction():
        identified.replace_all("bronze", "ingest_issue", issues, where=where, parameters=[batch_id, object_keys])


def _publish(staged: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        staged.replace(path)
    except FileNotFoundError:
        raise TransientError("a file just made is gone: another run of this batch is under way, run it again") from None


def _remove(plan: Plan, instance_keys: Collection[str]) -> None:
    for key in instance_keys:
        uri_to_path(plan.released[key].storage_uri).unlink(missing_ok=True)


def _empty(folder: Path) -> None:
    """Remove what this run, and any that was killed, has left unreleased."""
    if folder.exists():
        shutil.rmtree(folder)
