"""The ten categories of the MIDI-B challenge over outputs of one tool.

Pei et al., "Medical Image De-Identification Benchmark Challenge" (arXiv 2507.23608, 2025): the score is the share of
required actions carried out. There a missing file fails all its actions; here what is held is counted beside.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from imaging_pipeline_tests.deid.planted.judge import Verdict
from imaging_pipeline_tests.deid.planted.plants import Kind, Planted

CATEGORIES = (
    "tag_retained", "text_notnull", "text_retained", "text_removed", "date_shifted", "uid_changed", "uid_consistent",
    "patid_consistent", "pixels_hidden", "pixels_retained",
)  # fmt: skip
BEST_PUBLISHED = 0.9993
"""Highest of the ten teams' scores in the paper."""


@dataclass
class Score:
    """Actions done and required by category, and what failed."""

    done: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CATEGORIES, 0))
    required: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CATEGORIES, 0))
    failures: list[str] = field(default_factory=list)

    def count(self, category: str, where: str, *, is_done: bool) -> None:
        self.required[category] += 1
        self.done[category] += is_done
        if not is_done:
            self.failures.append(f"{category}: {where}")

    @property
    def total(self) -> float:
        """Share of all required actions that were carried out."""
        return sum(self.done.values()) / max(sum(self.required.values()), 1)

    def share(self, category: str) -> float:
        return self.done[category] / max(self.required[category], 1)


def score(outputs: Iterable[tuple[Planted, Verdict]]) -> Score:
    """Score outputs that belong together: the UIDs and patients of all of them must agree."""
    made = Score()
    uids: dict[str, set[str]] = defaultdict(set)
    patients: dict[str, set[str]] = defaultdict(set)
    shifts: dict[str, list[tuple[str, int | None]]] = defaultdict(list)
    for planted, verdict in outputs:
        _elements(made, planted, verdict)
        _pixels(made, planted, verdict)
        for path, (old, new) in verdict.mapped.items():
            made.count("uid_changed", f"{planted.name} {path}", is_done=new is None or new != old)
            if new is not None:
                uids[old].add(new)
        patients[planted.patient.patient_id].add(verdict.patient_id)
        shifts[planted.patient.patient_id] += [(f"{planted.name} {path}", days) for path, days in verdict.moved.items()]
    for old, new in uids.items():
        others = {one for other, news in uids.items() if other != old for one in news}
        made.count("uid_consistent", f"UID with {len(new)} replacements", is_done=len(new) == 1 and not new & others)
    for old, new in patients.items():
        others = {one for other, news in patients.items() if other != old for one in news}
        is_done = len(new) == 1 and not new & others and old not in new
        made.count("patid_consistent", f"patient with {len(new)} pseudonyms", is_done=is_done)
    for found in shifts.values():
        _dates(made, found)
    return made


def _elements(made: Score, planted: Planted, verdict: Verdict) -> None:
    emptied, missing = set(verdict.emptied), set(verdict.missing)
    for keep in planted.keeps:
        where = f"{planted.name} {keep.path}"
        made.count("tag_retained", where, is_done=keep.path not in missing)
        if keep.path not in missing:
            made.count("text_notnull", where, is_done=keep.path not in emptied)
        if keep.path not in missing | emptied:
            made.count("text_retained", where, is_done=keep not in verdict.changed)
    for plant in planted.plants:
        if plant.kind is not Kind.UID:
            where = f"{planted.name} {plant.place} {plant.kind}"
            made.count("text_removed", where, is_done=plant not in verdict.left)


def _pixels(made: Score, planted: Planted, verdict: Verdict) -> None:
    for number, mark in enumerate(planted.marks):
        label = f"{planted.name} frame {mark.frame} mark {number}"
        category, failed = ("pixels_hidden", verdict.seen) if mark.is_hidden else ("pixels_retained", verdict.blanked)
        made.count(category, label, is_done=label not in failed)
    made.count("pixels_retained", planted.name, is_done=not verdict.touched)
    if verdict.hidden_bits:
        made.count("pixels_hidden", f"{planted.name} unused bits", is_done=False)


def _dates(made: Score, found: list[tuple[str, int | None]]) -> None:
    """Dates of one patient that are still there have moved together, to the day before or after for the time of day."""
    moves = sorted(days for _, days in found if days is not None)
    usual = moves[len(moves) // 2] if moves else 0
    for where, days in found:
        is_done = days is not None and days != 0 and abs(days - usual) <= 1
        made.count("date_shifted", where, is_done=is_done)
