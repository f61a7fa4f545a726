"""The page of evidence: one HTML file for the person who answers for a release, made from the tables alone.

It needs nothing else, has no script, fetches nothing, and names no original.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Final

from imaging_pipeline.deid.anonymity import FEW
from imaging_pipeline.deid.evidence import Evidence, Row
from imaging_pipeline.objects.writing import write_atomically

MOST_ROWS: Final = 500
"""Rows of one table on the page; the CSV files have all."""

ACTION_WORDS: Final = {
    "D": "replaced by a dummy",
    "Z": "emptied",
    "X": "removed",
    "K": "kept",
    "C": "cleaned",
    "U": "UID replaced",
}
"""Actions of PS3.15 Table E.1-1a as they are shown."""


def render_page(evidence: Evidence) -> str:
    """The page of a run or batch."""
    sections = [
        ("held", "What is not released, and why", _held(evidence)),
        ("screen", "Search for identifiers in the output", _table(evidence.tables["screen"])),
        ("pixels", "Burned-in text", _pixels(evidence)),
        ("anonymity", "How many patients are alike", _anonymity(evidence)),
        ("actions", "What was done, by attribute", _actions(evidence)),
        ("run", "Under what", _run(evidence)),
    ]
    links = " ".join(f'<a href="#{name}">{escape(title)}</a>' for name, title, _ in sections)
    body = "".join(f'<section id="{name}"><h2>{escape(title)}</h2>{html}</section>' for name, title, html in sections)
    title = f"Evidence of the release for {evidence.run['project']}"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{escape(title)}</title><style>{_style()}</style></head><body>
<header><h1>{escape(title)}</h1><p>{_sum(evidence)}</p>{_cards(evidence)}<nav>{links}</nav></header>
<main>{body}</main></body></html>
"""


def write_page(path: Path, evidence: Evidence) -> None:
    """Write the page, whole or not at all."""
    write_atomically(path, render_page(evidence).encode())


def _style() -> str:
    return resources.files("imaging_pipeline.metadata.quality").joinpath("page.css").read_text(encoding="utf-8")


def _sum(evidence: Evidence) -> str:
    names = ("in", "released", "held", "failed")
    found, released, held, failed = (f"{evidence.count(name):,}" for name in names)
    verdict = "The counts close" if evidence.is_closed else "The counts do NOT close"
    return f"{verdict}: {found} objects in = {released} released + {held} held + {failed} failed."


def _cards(evidence: Evidence) -> str:
    held, failed = evidence.count("held"), evidence.count("failed")
    smallest = min((int(str(row["k"])) for row in evidence.tables["anonymity"]), default=0)
    cards = [
        ("good", evidence.count("released"), "released"),
        ("warn" if held else "good", held, "held: nothing of them was written"),
        ("bad" if failed else "good", failed, "failed: no DICOM, or not readable"),
        ("plain", evidence.count("files"), "files"),
        ("plain", evidence.count("patients"), "patients"),
        ("warn" if smallest < FEW else "good", smallest, "patients at least share their characteristics (k)"),
    ]
    return f"""<div class="cards">{
        "".join(
            f'<div class="card {kind}"><b>{number:,}</b><span>{escape(text)}</span></div>'
            for kind, number, text in cards
        )
    }</div>"""


def _held(evidence: Evidence) -> str:
    reasons = evidence.tables["reasons"]
    if not reasons:
        return '<p class="fine">Every object was released.</p>'
    html = _table(reasons)
    if held := evidence.tables["held"]:
        html += _folded(f"which objects ({len(held):,})", _table(held))
        html += (
            '<p class="note">Objects have keyed names here. <code>imaging-pipeline deid review</code> shows the holder '
            "of the key where they are.</p>"
        )
    passed = [row for row in evidence.tables["counts"] if str(row["measure"]).startswith("passed over")]
    return html + (_table(passed) if passed else "")


def _pixels(evidence: Evidence) -> str:
    html = _table(evidence.tables["pixels"]) if evidence.tables["pixels"] else '<p class="note">No pixels.</p>'
    if warnings := evidence.tables["warnings"]:
        html += "<h3>Warnings</h3>" + _table(warnings)
    return html


def _anonymity(evidence: Evidence) -> str:
    classes = evidence.tables["anonymity"]
    if not classes:
        return '<p class="note">Nothing was released.</p>'
    few = sum(int(str(row["patients"])) for row in classes if int(str(row["k"])) < FEW)
    html = (
        f"<p>{few:,} of {evidence.count('patients'):,} patients share their characteristics with fewer than {FEW - 1} "
        "others.</p>" + _table(classes)
    )
    if uniqueness := evidence.tables["uniqueness"]:
        html += "<h3>Attributes that tell patients apart</h3>" + _table(uniqueness)
    return html


def _actions(evidence: Evidence) -> str:
    rows = evidence.tables["actions"]
    total: dict[str, int] = {}
    for row in rows:
        total[str(row["action"])] = total.get(str(row["action"]), 0) + int(str(row["elements"]))
    summed = [
        {"action": action, "means": ACTION_WORDS.get(action, ""), "elements": number}
        for action, number in sorted(total.items())
    ]
    return _table(summed) + _folded(f"attribute by attribute ({len(rows):,} rows)", _table(rows))


def _run(evidence: Evidence) -> str:
    shown = {name: ", ".join(map(str, found)) if isinstance(found, list) else found for name, found in _told(evidence)}
    html = _table([{"what": name.replace("_", " "), "value": str(value)} for name, value in shown.items()])
    if options := evidence.tables["options"]:
        html += "<h3>Claimed in the files (PS3.16 CID 7050)</h3>" + _table(options)
    return html + (
        '<p class="note">The release digest is the SHA-256 of the sorted list of file names and their digests, as '
        "files.csv has them. Keys are named by identifiers that nothing can be derived from.</p>"
    )


def _told(evidence: Evidence) -> Iterable[tuple[str, object]]:
    return ((name, found) for name, found in evidence.run.items() if found not in ("", None))


def _folded(summary: str, html: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{html}</details>"


def _table(rows: Sequence[Row]) -> str:
    """A table; columns of numbers stand to the right."""
    if not rows:
        return '<p class="note">None.</p>'
    names = list(rows[0])
    head = "".join(f"<th{_kind(rows[0][name])}>{escape(name.replace('_', ' '))}</th>" for name in names)
    body = "".join(f"<tr>{_cells(row, names)}</tr>" for row in rows[:MOST_ROWS])
    left = f'<p class="note">The first {MOST_ROWS} of {len(rows):,}.</p>' if len(rows) > MOST_ROWS else ""
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{left}'


def _cells(row: Mapping[str, object], names: Sequence[str]) -> str:
    return "".join(f"<td{_kind(row[name])}>{_shown(row[name])}</td>" for name in names)


def _kind(value: object) -> str:
    return "" if isinstance(value, int) else ' class="text"'


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else escape(str(value))
