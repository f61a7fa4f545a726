"""What shows that a release was done right: tables counted from the outcomes of its objects.

Contains no page and no lake. Nothing here names an original: objects have keyed tokens, elements tag paths, patients
pseudonyms; no table says when the run was, which could give shifted dates away.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from pydicom.datadict import keyword_for_tag

from imaging_pipeline import __version__
from imaging_pipeline.deid.anonymity import anonymity_tables
from imaging_pipeline.deid.outcomes import Outcome, Verdict
from imaging_pipeline.deid.pixels import Decisions
from imaging_pipeline.deid.profile import Profile
from imaging_pipeline.deid.pseudonyms import ProjectKeys
from imaging_pipeline.errors import Reason
from imaging_pipeline.objects.writing import write_atomically

RUN_FILE: Final = "run.json"
"""Marks a folder as evidence, and says of which run."""

Row = Mapping[str, object]
Tables = Mapping[str, Sequence[Row]]


@dataclass(frozen=True, slots=True)
class Evidence:
    """The tables of one run or batch.

    Attributes:
        run: under which profile, keys and code.
        tables: rows by table name: counts, reasons, held, actions, screen, pixels, warnings, options, anonymity,
            uniqueness, files.
    """

    run: Mapping[str, object]
    tables: Tables

    def count(self, measure: str) -> int:
        """A figure of the table of counts; 0 when there is none of this name."""
        return next((int(str(row["objects"])) for row in self.tables["counts"] if row["measure"] == measure), 0)

    @property
    def is_closed(self) -> bool:
        """Every object was released, held, or failed."""
        return self.count("in") == self.count("released") + self.count("held") + self.count("failed")


def run_of(profile: Profile, keys: ProjectKeys, decisions: Decisions, engine_version: str) -> dict[str, object]:
    """Under what a run releases: the same gives the same files.

    Args:
        profile: the profile.
        keys: the project's keys; their identifier alone is told.
        decisions: what people decided about pixels.
        engine_version: version of the engine.
    """
    return {
        "project": keys.project,
        "epoch": keys.epoch,
        "key_id": keys.key_id,
        "profile": profile.profile_id,
        "profile_version": profile.version,
        "profile_digest": profile.digest,
        "options": sorted(profile.options),
        "decisions": len(decisions.objects) + len(decisions.devices),
        "decisions_digest": decisions_digest(decisions),
        "engine_version": engine_version,
        "software_version": __version__,
    }


def decisions_digest(decisions: Decisions) -> str:
    """SHA-256 over all decisions: with others the same objects may give other files."""
    objects = [[digest, asdict(decision)] for digest, decision in decisions.objects.items()]
    devices = [[asdict(device), asdict(decision)] for device, decision in decisions.devices.items()]
    content = sorted(json.dumps(entry, sort_keys=True) for entry in (*objects, *devices))
    return hashlib.sha256("\n".join(content).encode()).hexdigest()


def collect(run: Mapping[str, object], outcomes: Iterable[Outcome], passed_over: Mapping[str, int]) -> Evidence:
    """Count the outcomes of a run.

    Args:
        run: what `run_of` gave.
        outcomes: one for each object.
        passed_over: names that were seen and are no objects of the run, by kind.
    """
    ordered = sorted(outcomes, key=lambda outcome: outcome.token)
    released = [each for each in ordered if each.verdict is Verdict.RELEASED]
    first = [each for each in released if each.file]
    classes, uniqueness = anonymity_tables((each.patient_id, each.quasi) for each in first)
    tables: dict[str, Sequence[Row]] = {
        "counts": _counts(ordered, first, passed_over),
        "reasons": _reasons(ordered),
        "held": [_held(each) for each in ordered if each.verdict is not Verdict.RELEASED],
        "actions": _actions(first),
        "screen": _screen(ordered, first),
        "pixels": _summed("measure", (each.pixels for each in first)),
        "warnings": _summed("warning", (dict.fromkeys(each.warnings, 1) for each in first)),
        "options": _summed("code", (dict.fromkeys(each.options, 1) for each in first)),
        "anonymity": classes,
        "uniqueness": uniqueness,
        "files": [
            {"file": each.file, "sha256": each.sha256, "sop_instance_uid": each.sop_instance_uid} for each in first
        ],
    }
    digest = hashlib.sha256("".join(sorted(f"{each.file} {each.sha256}\n" for each in first)).encode()).hexdigest()
    return Evidence({**run, "release_digest": digest}, tables)


def write_tables(folder: Path, evidence: Evidence) -> None:
    """Write each table as CSV, all of them as one JSON document, and what the run was."""
    for name, rows in evidence.tables.items():
        write_atomically(folder / f"{name}.csv", _csv(rows).encode())
    document = {"run": evidence.run, "tables": evidence.tables}
    write_atomically(folder / "evidence.json", (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())
    write_atomically(folder / RUN_FILE, (json.dumps(evidence.run, indent=1, sort_keys=True) + "\n").encode())


def _counts(outcomes: Sequence[Outcome], first: Sequence[Outcome], passed_over: Mapping[str, int]) -> list[Row]:
    verdicts = Counter(each.verdict for each in outcomes)
    found = {
        "in": len(outcomes),
        "released": verdicts[Verdict.RELEASED],
        "held": verdicts[Verdict.HELD],
        "failed": verdicts[Verdict.FAILED],
        "files": len(first),
        "duplicates": verdicts[Verdict.RELEASED] - len(first),
        "patients": len({each.patient_id for each in first}),
        "studies": len({each.study_instance_uid for each in first}),
    }
    found |= {f"passed over: {kind}": number for kind, number in sorted(passed_over.items())}
    return [{"measure": measure, "objects": number} for measure, number in found.items()]


def _reasons(outcomes: Sequence[Outcome]) -> list[Row]:
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for each in outcomes:
        if each.reason:
            groups.setdefault((each.verdict, each.reason), []).append(each)
    return [
        {
            "verdict": str(verdict),
            "reason": reason,
            "objects": len(group),
            "most_often": Counter(each.message for each in group).most_common(1)[0][0],
        }
        for (verdict, reason), group in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


def _held(outcome: Outcome) -> Row:
    return {
        "object": outcome.token,
        "verdict": outcome.verdict.value,
        "reason": outcome.reason,
        "dicom_path": outcome.dicom_path,
        "message": outcome.message,
    }


def _actions(outcomes: Iterable[Outcome]) -> list[Row]:
    """What was done to each attribute, over all released files."""
    total: Counter[str] = Counter()
    for each in outcomes:
        total.update(each.actions)
    rows: list[Row] = []
    for key, number in sorted(total.items()):
        path, _, action = key.rpartition(" ")
        rows.append({"path": path, "attribute": _keyword(path), "action": action, "elements": number})
    return rows


def _keyword(path: str) -> str:
    """Keyword of the last attribute of a path, or empty for one the dictionary does not have."""
    try:
        return keyword_for_tag(int(path.rpartition(".")[2], 16))
    except ValueError:
        return ""


def _screen(outcomes: Sequence[Outcome], first: Sequence[Outcome]) -> list[Row]:
    """The value screen: what was looked at, and what was found (and held) by it."""
    refused = [each for each in outcomes if each.reason == Reason.RESIDUAL_IDENTIFIER]
    return [
        {"measure": "files that were searched and hold no identifier", "objects": len(first)},
        {"measure": "objects held because an identifier was found in their output", "objects": len(refused)},
        {
            "measure": "values compared with the identifiers of all patients",
            "objects": sum(len(each.numbers) for each in first),
        },
    ]


def _summed(name: str, figures: Iterable[Mapping[str, int]]) -> list[Row]:
    total: Counter[str] = Counter()
    for each in figures:
        total.update(each)
    return [{name: key, "number": number} for key, number in sorted(total.items())]


def _csv(rows: Sequence[Row]) -> str:
    stream = io.StringIO()
    if rows:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return stream.getvalue()
