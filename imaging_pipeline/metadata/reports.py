"""The content of structured reports as rows: the tree of content items, and irradiation events of dose reports.

Key object selections have the same tree (PS3.3 A.35.4). The templates of dose reports are in PS3.16, TID 10001 ff.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType

from imaging_pipeline.errors import Issue, Reason, Severity, Stage
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.registry import Table
from imaging_pipeline.metadata.projection import Elements, Row
from imaging_pipeline.metadata.tolerance import bounded, malformed, projected, values

_CONTENT = "0040A730"
_MEASURED_VALUE, _NUMERIC_VALUE = "0040A300", "0040A30A"

_SCHEME = "DCM"
_DOSE_REPORT = "113701"
_EVENTS = frozenset({"113706", "113819"})
"""Containers of an irradiation event (TID 10003) and of a CT acquisition (TID 10013)."""

_STATED: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "113769": ("irradiation_event_uid", "uid_value"),
        "113721": ("event_type", "concept_value"),
        "113820": ("event_type", "concept_value"),
        "125203": ("acquisition_protocol", "text_value"),
        "123014": ("target_region", "concept_value"),
        "111526": ("started_at", "datetime_value"),
    }
)
"""By the code of a content item: the column of the event, and that of the content item it comes from."""

_MEASURED: Mapping[str, str] = MappingProxyType(
    {
        "113830": "mean_ctdi_vol_mgy",
        "113838": "dlp_mgy_cm",
        "122130": "dap_gy_m2",
        "113738": "dose_rp_gy",
        "113733": "kvp",
        "113734": "tube_current_ma",
        "113824": "exposure_time_ms",
    }
)
"""By the code of a content item: the column of the event, which has a unit."""

_TERM = re.compile(r"([numcdkM]?)(Gy|m|s|A|V)([23]?)").fullmatch
_PREFIXES: Mapping[str, int] = MappingProxyType({"": 0, "n": -9, "u": -6, "m": -3, "c": -2, "d": -1, "k": 3, "M": 6})


@dataclass(frozen=True, slots=True)
class _Node:
    """A content item and where it is: ``path`` in the tree, ``element_path`` in the header."""

    item: Elements
    path: str
    parent: str | None
    depth: int
    element_path: str


def content_items(elements: Elements, table: Table) -> tuple[list[Row], list[Issue]]:
    """Rows of ``dicom_sr_content_item``: the tree of PS3.3 C.17.3, in the order of the document.

    The root is ``1``, the second item of its content sequence ``1.2``: the positions that references within the tree
    use, so an item that is damaged keeps its number. Of several numeric values the first is taken.

    Args:
        elements: a header.
        table: ``dicom_sr_content_item``.
    """
    rows: list[Row] = []
    issues: list[Issue] = []
    for node in _nodes(elements, issues):
        row, found = projected(node.item, table, node.element_path)
        row["node_path"], row["parent_node_path"], row["depth"] = node.path, node.parent, node.depth
        rows.append(row)
        issues += found
        measured = [item for item in values(node.item, _MEASURED_VALUE) if isinstance(item, dict)]
        if len(measured) > 1 or (measured and len(values(measured[0], _NUMERIC_VALUE)) > 1):
            path = ".".join(filter(None, (node.element_path, _MEASURED_VALUE)))
            message = "a measurement has several values; the first is taken"
            issues.append(Issue(Reason.VM_INVALID, Stage.MAP, Severity.INFO, path, message))
    return rows, bounded(issues)


def irradiation_events(elements: Elements, table: Table) -> tuple[list[Row], list[Issue]]:
    """Rows of ``dicom_irradiation_event``: the events of a radiation dose report (TID 10003, TID 10013).

    Of what is stated several times in an event, as by a CT with two tubes, the first is taken. Values are converted to
    the units of the columns where the report states others of the same kind.

    Args:
        elements: a header; other reports than dose reports have no events.
        table: ``dicom_irradiation_event``.
    """
    rows: list[Row] = []
    issues: list[Issue] = []
    event: str | None = None
    items, _ = (
        content_items(elements, registry.table("dicom_sr_content_item")) if _is_dose_report(elements) else ([], [])
    )
    for item in items:
        code = _code_of(item)
        if event is not None and str(item["node_path"]).startswith(event):
            _complete_event(rows[-1], item, code or "", table, issues)
        elif code in _EVENTS:
            event = f"{item['node_path']}."
            rows.append({"event_index": len(rows) + 1})
    return rows, bounded(issues)


def power_of_ten(unit: str, wanted: str) -> int | None:
    """The power of ten by which values in one UCUM unit are multiplied to be in another; None between other kinds.

    Known are units of gray, metre, second, ampere and volt; the dot after ``Gy`` may be left out, as older reports do.

    >>> power_of_ten("uGy.m2", "Gy.m2"), power_of_ten("s", "ms"), power_of_ten("mGy", "s")
    (-6, 3, None)
    """
    given, target = _dimensions(unit), _dimensions(wanted)
    if given is None or target is None or given[0] != target[0]:
        return None
    return given[1] - target[1]


def _nodes(elements: Elements, issues: list[Issue]) -> Iterator[_Node]:
    waiting = [_Node(elements, "1", None, 1, "")]
    while waiting:
        node = waiting.pop()
        yield node
        inner: list[_Node] = []
        for index, item in enumerate(values(node.item, _CONTENT)):
            path = ".".join(filter(None, (node.element_path, f"{_CONTENT}[{index}]")))
            if isinstance(item, dict):
                inner.append(_Node(item, f"{node.path}.{index + 1}", node.path, node.depth + 1, path))
            else:
                issues.append(malformed(path, "a content item is no data set"))
        waiting += reversed(inner)


def _is_dose_report(elements: Elements) -> bool:
    row, _ = projected(elements, registry.table("dicom_sr_content_item"))
    return _code_of(row) == _DOSE_REPORT


def _code_of(item: Row) -> str | None:
    """The code of a content item's name, when it is one of DICOM's own."""
    name = item.get("concept_name")
    if not isinstance(name, dict) or name["coding_scheme_designator"] != _SCHEME:
        return None
    return str(name["code_value"])


def _complete_event(event: Row, item: Row, code: str, table: Table, issues: list[Issue]) -> None:
    if code in _STATED:
        column, source = _STATED[code]
        if event.get(column) is None:
            event[column] = item.get(source)
    elif code in _MEASURED and event.get(_MEASURED[code]) is None and item.get("numeric_value") is not None:
        column = _MEASURED[code]
        wanted = next(declared.unit for declared in table.columns if declared.name == column)
        unit = item.get("measurement_units")
        power = power_of_ten(str(unit["code_value"]), wanted) if isinstance(unit, dict) else None
        if power is None:
            message = f"{table.name}.{column}: the unit is missing or unknown, so the value is not taken"
            issues.append(Issue(Reason.VR_INVALID, Stage.MAP, Severity.WARNING, _CONTENT, message))
        else:
            event[column] = float(Decimal(str(item["numeric_value"])).scaleb(power))


def _dimensions(unit: str) -> tuple[tuple[tuple[str, int], ...], int] | None:
    """The base units of a UCUM unit with their exponents, and its power of ten."""
    terms = [_TERM(term) for term in re.sub(r"Gy(?=[a-z])", "Gy.", unit).split(".")]
    parts: list[tuple[str, int]] = []
    power = 0
    for term in terms:
        if term is None:
            return None
        exponent = int(term[3] or 1)
        parts.append((term[2], exponent))
        power += _PREFIXES[term[1]] * exponent
    return tuple(sorted(parts)), power
