"""The quality page: one HTML file that needs nothing else. It names UIDs and belongs into the identified zone.

Every text is escaped; there is no script, and nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from itertools import groupby
from pathlib import Path

from imaging_pipeline.errors import Severity
from imaging_pipeline.metadata.quality.evaluation import MOST_OFFENDERS, Finding
from imaging_pipeline.metadata.quality.figures import Completeness, Quality
from imaging_pipeline.objects.writing import write_atomically

PAIR = "other_instance_key"
"""Column by which a finding names a second instance."""

_SOURCE_HEAD = (
    "source", "objects seen", "read", "failed", "no DICOM", "vanished", "patients", "studies", "series", "instances",
)  # fmt: skip
_LEFT = "text"
"""Class of the cells that hold text."""


def render_page(quality: Quality) -> str:
    """The page of a batch, or of all."""
    what = f"batch {quality.batch_id}" if quality.batch_id else "all batches"
    broken = [finding for finding in quality.findings if not finding.is_passed]
    pairs = [finding for finding in broken if any(PAIR in offender for offender in finding.offenders)]
    sections = [
        ("attention", "What needs attention", _broken(broken, quality)),
        ("pairs", "Series with gaps, duplicates or tilt", _pairs(pairs, quality)),
        ("zones", "What came, by source and zone", _zones(quality)),
        ("issues", "Issues by code", _issues(quality)),
        ("completeness", "Completeness by modality", _completeness(quality.completeness)),
        ("invalid", "Values that are not legal, by manufacturer", _invalid(quality)),
        ("rules", "All rules", _all_rules(quality.findings)),
    ]
    links = " ".join(f'<a href="#{name}">{escape(title)}</a>' for name, title, _ in sections)
    body = "".join(f'<section id="{name}"><h2>{escape(title)}</h2>{html}</section>' for name, title, html in sections)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Quality of {escape(what)}</title><style>{_style()}</style></head><body>
<header><h1>Quality of {escape(what)}</h1>
<p>Looked at {quality.made_at:%Y-%m-%d %H:%M} UTC. This page names UIDs: it must not leave the identified zone.</p>
{_cards(quality, broken)}<nav>{links}</nav></header>
<main>{body}</main></body></html>
"""


def write_page(path: Path, quality: Quality) -> None:
    """Write the page, whole or not at all, into a folder that is made for its owner alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(path, render_page(quality).encode())


def _style() -> str:
    return resources.files("imaging_pipeline.metadata.quality").joinpath("page.css").read_text(encoding="utf-8")


def _cards(quality: Quality, broken: Sequence[Finding]) -> str:
    errors = sum(finding.rule.severity is Severity.ERROR for finding in broken)
    objects, _, failed = (sum(int(str(row[column])) for row in quality.by_source) for column in (1, 2, 3))
    cards = [
        ("bad" if errors else "good", errors, "broken rules that hold the batch"),
        ("warn" if len(broken) > errors else "good", len(broken) - errors, "broken rules that do not hold it"),
        ("good", len(quality.findings) - len(broken), "rules that hold"),
        ("plain", objects, "objects seen"),
        ("bad" if failed else "good", failed, "objects that failed"),
    ]
    return '<div class="cards">' + "".join(
        f'<div class="card {kind}"><b>{number:,}</b><span>{escape(text)}</span></div>' for kind, number, text in cards
    ) + "</div>"  # fmt: skip


def _broken(findings: Sequence[Finding], quality: Quality) -> str:
    if not findings:
        return '<p class="fine">Every rule holds.</p>'
    order = sorted(findings, key=lambda f: (f.rule.severity is not Severity.ERROR, f.rule.name.startswith("type_")))
    note = '<p class="note">Each title says what should hold, and does not; the arrow says what to do.</p>'
    return note + "".join(_broken_rule(finding, quality) for finding in order)


def _broken_rule(finding: Finding, quality: Quality) -> str:
    rule = finding.rule
    if finding.error:
        count = f"It could not be looked at ({escape(finding.error)}): report it, with this page's date."
    else:
        count = (
            f"{_bar(finding.failed, finding.checked)} <b>{finding.failed:,}</b> of {finding.checked:,} in {rule.table}"
        )
    return f"""<article><h3>{_severity(rule.severity)} {escape(_title(rule.name))}</h3><p class="count">{count}</p>
<div><p>{escape(rule.means)}</p><p class="advice">{escape(rule.advice)}</p></div>{_offenders(finding, quality)}
</article>"""


def _offenders(finding: Finding, quality: Quality) -> str:
    if not finding.offenders:
        return ""
    head = list(finding.offenders[0])
    rows = [[_named(quality, offender[name]) for name in head] for offender in finding.offenders]
    shown = f"the first {MOST_OFFENDERS} of {finding.rows:,}" if finding.rows > len(rows) else f"{len(rows):,}"
    titles = [name.removesuffix("_key").replace("_", " ") for name in head]
    return f"<details><summary>which ones ({shown})</summary>{_table(titles, rows)}</details>"


def _pairs(findings: Iterable[Finding], quality: Quality) -> str:
    rows = []
    for finding in findings:
        for offender in finding.offenders:
            if PAIR not in offender:
                continue
            keys = ("series_key", "instance_key", PAIR)
            more = {name: value for name, value in offender.items() if value and name not in (*keys, "mm")}
            others = (f"{name.replace('_', ' ')}: {value}" for name, value in more.items())
            distance = "" if offender.get("mm") is None else f"{offender['mm']} mm"
            names = [_named(quality, offender[key]) for key in keys]
            rows.append([_title(finding.rule.name), *names, distance, "; ".join(others)])
    if not rows:
        return '<p class="fine">No series has two images that do not follow each other as they should.</p>'
    head = ("broken rule", "series", "one image", "the other image", "between them", "more")
    return _table(head, rows, left=(0, 1, 2, 3, 5)) + (
        f'<p class="note">Images by SOP Instance UID; of each rule the first {MOST_OFFENDERS}.</p>'
    )


def _zones(quality: Quality) -> str:
    html = _table(_SOURCE_HEAD, quality.by_source, left=(0,))
    html += '<p class="note">Objects: bronze. Patients to instances: silver, by what the objects say.</p>'
    if quality.released is None:
        return html + '<p class="note">The research side was not looked at: nothing was released yet.</p>'
    head = ("research side", "patients", "studies", "series", "instances", "tensors")
    return html + _table(head, [("released", *quality.released)], left=(0,))


def _issues(quality: Quality) -> str:
    if not quality.issues:
        return '<p class="fine">No object has an issue.</p>'
    head = ("stage", "severity", "code", "objects", "what one of them says")
    return _table(head, quality.issues, left=(0, 1, 2, 4)) + (
        '<p class="note">ERROR loses the object, WARNING a value, INFO nothing. What to do about each code stands in '
        "docs/how-to/operate.md.</p>"
    )


def _completeness(found: Sequence[Completeness]) -> str:
    if not found:
        return '<p class="fine">There are no rows to look at.</p>'
    html = (
        '<p class="note">How many of the rows have a value. Type 1: all must; 2: it may be empty; '
        "C: the same, on a condition that is not looked at.</p>"
    )
    for table, group in groupby(found, key=lambda each: each.table):
        attributes = list(group)
        modalities = sorted({name for each in attributes for name in each.filled})
        head = _head([("attribute", True), ("type", True), *((name, False) for name in modalities)])
        rows = "".join(_completeness_row(each, modalities) for each in attributes)
        html += f"""<h3>{escape(table)}</h3><div class="scroll"><table>{head}<tbody>{rows}</tbody></table></div>"""
    return html


def _completeness_row(each: Completeness, modalities: Sequence[str]) -> str:
    cells = ""
    for modality in modalities:
        filled, count = each.filled.get(modality, (0, 0))
        kind = "must" if each.column.attribute_type == "1" else ""
        share = f"{_bar(filled, count, good=True, kind=kind)} {_percent(filled, count)}" if count else ""
        cells += f'<td title="{filled:,} of {count:,}">{share}</td>'
    name = escape(each.column.keyword or each.column.name)
    return f'<tr><td class="{_LEFT}">{name}</td><td class="{_LEFT}">{each.column.attribute_type}</td>{cells}</tr>'


def _invalid(quality: Quality) -> str:
    if not quality.invalid:
        return '<p class="fine">No elements are kept (setting ELEMENTS is off), so none were looked at.</p>'
    rows = "".join(
        f'<tr><td class="{_LEFT}">{escape(str(maker))}</td><td>{_number(count)}</td><td>{_number(illegal)}</td>'
        f"<td>{_bar(int(str(illegal)), int(str(count)))} {_percent(int(str(illegal)), int(str(count)))}</td></tr>"
        for maker, count, illegal in quality.invalid
    )
    head = _head([("manufacturer", True), ("elements", False), ("not legal", False), ("share", False)])
    return f'<div class="scroll"><table>{head}<tbody>{rows}</tbody></table></div>'


def _all_rules(findings: Sequence[Finding]) -> str:
    parts = []
    for title, is_structural in (("Rules about the data", False), ("Rules about the lake itself", True)):
        group = [finding for finding in findings if (": " in finding.rule.name) is is_structural]
        held = sum(finding.is_passed for finding in group)
        rows = "".join(_rule_row(finding) for finding in group)
        titles = ("rule", "severity", "passed", "failed", "what it means when it fails, and what to do")
        head = _head([(name, column in (0, 1, 4)) for column, name in enumerate(titles)])
        parts.append(
            f"<details><summary>{title}: {held:,} of {len(group):,} hold</summary>"
            f'<div class="scroll"><table>{head}<tbody>{rows}</tbody></table></div></details>'
        )
    return "".join(parts)


def _rule_row(finding: Finding) -> str:
    rule = finding.rule
    kind = "" if finding.is_passed else ' class="failed"'
    numbers = f"<td>{max(finding.checked - finding.failed, 0):,}</td><td>{finding.failed:,}</td>"
    return (
        f'<tr{kind}><td class="{_LEFT}">{escape(_title(rule.name))}</td>'
        f'<td class="{_LEFT}">{_severity(rule.severity)}</td>{numbers}'
        f'<td class="{_LEFT}">{escape(rule.means)} <span class="advice">{escape(rule.advice)}</span></td></tr>'
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[object]], left: Sequence[int] | None = None) -> str:
    """A table; columns named by ``left`` hold text, others numbers (all text when it is not given)."""
    titles = _head([(title, left is None or column in left) for column, title in enumerate(head)])
    body = ""
    for row in rows:
        cells = (
            f'<td class="{_LEFT}">{escape(str(value))}</td>' if left is None or column in left
            else f"<td>{_number(value)}</td>"
            for column, value in enumerate(row)
        )  # fmt: skip
        body += f"<tr>{''.join(cells)}</tr>"
    return f'<div class="scroll"><table>{titles}<tbody>{body}</tbody></table></div>'


def _head(titles: Iterable[tuple[str, bool]]) -> str:
    """The head of a table: titles, and whether their columns hold text."""
    cells = "".join(f"<th{f' class={_LEFT}' if is_text else ''}>{escape(title)}</th>" for title, is_text in titles)
    return f"<thead><tr>{cells}</tr></thead>"


def _named(quality: Quality, value: object) -> str:
    """A key as the UID it stands for, where there is one."""
    return quality.uids.get(str(value), "" if value is None else str(value))


def _title(name: str) -> str:
    return name if ": " in name else name.replace("_", " ")


def _severity(severity: Severity) -> str:
    return f'<span class="chip {severity.value.lower()}">{severity.value}</span>'


def _bar(part: int, whole: int, *, good: bool = False, kind: str = "") -> str:
    """A bar of which the part is filled; green ones show what is there, red ones what is wrong."""
    share = 100 * min(part / whole, 1) if whole else 0
    return f'<span class="bar {"fill" if good else "fault"} {kind}"><i style="width:{share:.1f}%"></i></span>'


def _percent(part: int, whole: int) -> str:
    """A share that says 100 % and 0 % only when it is."""
    share = 100 * part / whole if whole else 0.0
    if 0 < part < whole:
        share = min(max(share, 0.1), 99.9)
    return f"{share:.1f} %".replace(".0 %", " %") if share in (0.0, 100.0) else f"{share:.1f} %"


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else escape("" if value is None else str(value))
