"""The datasheet of a dataset version: who is in it, where it comes from, how it was split; Markdown.

After Gebru et al., "Datasheets for Datasets" (2021), as far as a pipeline can fill one in. Counts only: a cell that
stands for fewer patients than `SMALLEST_CELL` is not shown, and neither is one it could be computed from.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from imaging_pipeline.lake.store import Lake
from imaging_pipeline.objects.writing import write_atomically
from imaging_pipeline.settings import Settings
from imaging_pipeline.tensors.candidates import groups_of
from imaging_pipeline.tensors.definition import GROUPS
from imaging_pipeline.tensors.frozen import VersionRecord, find_version
from imaging_pipeline.tensors.splits import Split
from imaging_pipeline.tensors.versions import DatasetVersion, Member

SMALLEST_CELL = 5
"""Fewest patients that are shown as a number."""

HIDDEN = f"<{SMALLEST_CELL}"
COMPUTABLE = "-"
"""Shown for a cell that is hidden because a hidden neighbour could be computed from it."""

QUASI_IDENTIFIERS = ("sex", "age", "institution")
"""Groups by which someone who knows a patient could look for them."""

UNKNOWN = "not stated"

Groups = Mapping[str, Mapping[str, str]]
"""Of each instance or series key: group and value."""


def datasheet(version: DatasetVersion, record: VersionRecord, groups: Groups) -> str:
    """The datasheet as Markdown; the same version and groups give the same text.

    Args:
        version: its members.
        record: its provenance.
        groups: what is known of its images.
    """
    tables = [("label", _by_label(version.members)), ("label source", _by_source(version.members))]
    tables += [(name, _by_group(version.members, groups, name)) for name in GROUPS]
    lines = [f"# {record.dataset_id}, version {record.version}", "", *_summary(version, record), "", "## Sides", ""]
    lines += _table(("side", "patients", "images"), side_counts(version))
    lines += ["", "## Who and what is in it", ""]
    lines += [
        f"Patients (images) of each side. `{HIDDEN}`: fewer patients than that; `{COMPUTABLE}`: hidden, since a hidden",
        f"cell could be computed from it. {_smallest_class(version.members, groups)}",
    ]
    for name, cells in tables:
        if set(cells) != {UNKNOWN}:
            lines += ["", *_table((name, *Split), _counted(cells))]
    lines += ["", "## What could have been in it and is not", ""]
    lines += _table(("reason", "images"), list(record.left_out.items())) if record.left_out else ["Nothing."]
    lines += [
        "",
        "## Definition",
        "",
        *_code(record.definition.to_json()),
        "",
        "## Recipe",
        "",
        *_code(record.recipe_json),
    ]
    return "\n".join(lines) + "\n"


def write_datasheet(lake: Lake, version: DatasetVersion, settings: Settings) -> Path:
    """Write the datasheet of a version into the research zone; run again, it leaves the same file."""
    record = find_version(lake, f"{version.dataset_id}/{version.version}")
    groups = groups_of(lake, [member.subject_key for member in version.members])
    path = settings.home / "research" / "datasets" / version.dataset_id / version.version / "datasheet.md"
    write_atomically(path, datasheet(version, record, groups).encode())
    return path


def side_counts(version: DatasetVersion) -> list[tuple[str, str, str]]:
    """Name, patients and images of each side, without the small cells."""
    counts = version.counts()
    shown = suppressed([patients for _, patients, _, _ in counts])
    return [
        (name, text, str(images) if text.isdecimal() else text)
        for (name, _, images, _), text in zip(counts, shown, strict=True)
    ]


def _summary(version: DatasetVersion, record: VersionRecord) -> list[str]:
    split, sources = record.definition.split, sorted({member.label_source for member in version.members})
    believed = "the first that labels an image" if record.definition.label_sources else "all, where they agree"
    shares = ", ".join(f"{side} {getattr(split.fractions, side):g}" for side in Split)
    held_out = f"; held out by {split.hold_out.by}" if split.hold_out else ""
    strata = f"; stratified by {', '.join(split.stratify)}" if split.stratify else ""
    rows = [
        ("task", record.definition.task),
        ("licence", record.definition.licence or UNKNOWN),
        ("label sources", f"{', '.join(record.definition.label_sources or sources)}: {believed}"),
        ("split", f"by {split.by}, seed {split.seed}, {shares}{strata}{held_out}; no patient is on two sides"),
        ("project", record.project or UNKNOWN),
        ("de-identification profile", record.profile or UNKNOWN),
        ("key identifier", record.key_id or UNKNOWN),
        ("recipe digest", record.recipe_digest),
        ("lake snapshot", str(record.snapshot_id)),
        ("manifest SHA-256", record.manifest_sha256),
    ]
    return _table(("", ""), rows)


Cells = Mapping[str, Mapping[Split, Sequence[str]]]
"""Of each value and side: the patients, one for each image."""


def _by_label(members: Sequence[Member]) -> Cells:
    return _cells(members, {member.tensor_key: f"{member.label:g}" for member in members})


def _by_source(members: Sequence[Member]) -> Cells:
    return _cells(members, {member.tensor_key: member.label_source for member in members})


def _by_group(members: Sequence[Member], groups: Groups, name: str) -> Cells:
    return _cells(members, {m.tensor_key: groups.get(m.subject_key, {}).get(name, UNKNOWN) for m in members})


def _cells(members: Sequence[Member], values: Mapping[str, str]) -> Cells:
    cells: defaultdict[str, defaultdict[Split, list[str]]] = defaultdict(lambda: defaultdict(list))
    for member in members:
        cells[values[member.tensor_key]][member.split].append(member.patient)
    return cells


def _counted(cells: Cells) -> Iterator[tuple[str, ...]]:
    values = sorted(cells)
    columns = []
    for side in Split:
        of_side = [cells[value].get(side, ()) for value in values]
        shown = suppressed([len(set(patients)) for patients in of_side])
        columns.append(
            [f"{text} ({len(p)})" if text.isdecimal() else text for text, p in zip(shown, of_side, strict=True)]
        )
    yield from zip(values, *columns, strict=True)


def suppressed(counts: Sequence[int]) -> list[str]:
    """Counts whose sum may be known, without the small ones.

    Where one alone would be hidden, the least other one is hidden with it, since their sum would tell it.
    """
    small = {position for position, count in enumerate(counts) if 0 < count < SMALLEST_CELL}
    others = [position for position, count in enumerate(counts) if count and position not in small]
    beside = min(others, key=lambda position: counts[position]) if len(small) == 1 and others else None
    return [
        HIDDEN if position in small else COMPUTABLE if position == beside else str(count)
        for position, count in enumerate(counts)
    ]


def _smallest_class(members: Sequence[Member], groups: Groups) -> str:
    """The k of k-anonymity over the quasi-identifiers that are known."""
    of_patient: defaultdict[str, set[tuple[str, ...]]] = defaultdict(set)
    for member in members:
        known = groups.get(member.subject_key, {})
        of_patient[member.patient].add(tuple(known.get(name, UNKNOWN) for name in QUASI_IDENTIFIERS))
    classes = Counter(tuple(sorted(values)) for values in of_patient.values())
    names = ", ".join(QUASI_IDENTIFIERS)
    return f"The fewest patients who are alike in {names}: {min(classes.values())}."


def _table(header: Sequence[str], rows: Iterator[tuple[str, ...]] | Sequence[Sequence[object]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(_escaped(str(cell)) for cell in line) + " |" for line in lines]


def _escaped(text: str) -> str:
    """Values of headers are not markup."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


def _code(text: str) -> list[str]:
    return ["```json", json.dumps(json.loads(text), indent=1, sort_keys=True), "```"]
