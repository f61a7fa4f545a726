"""Findings in structured reports → labels of the images they are about.

Reads content trees: those of silver, or of deid those that people have sent. A finding is stated as ``Finding =
pneumonia`` or as a qualitative evaluation ``pneumonia = present`` (PS3.16 TID 1500, TID 1501): in a measurement group
about the group's images, elsewhere about all images of the report that are of its own study, since prior images may be
named for comparison. A comment on a measurement counts where it is a finding in words and nothing else.

A report that names an algorithm (TID 4019) counts once a person has verified it: a model must not learn from its own
output, which comes back from the PACS like any report.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from imaging_pipeline.lake.store import Lake
from imaging_pipeline.pneumonia.labels.findings import (
    ALGORITHM_NAME,
    COMMENT,
    FINDING,
    FREE_TEXT,
    MEASUREMENT_GROUP,
    PERSON_OBSERVER,
    PRESENCE,
    TASKS,
    Code,
    said_in_words,
)
from imaging_pipeline.pneumonia.labels.model import Box, Label, Method, value_of

Node = Mapping[str, Any]
"""A row of ``dicom_sr_content_item`` with what is known of its document."""


@dataclass(frozen=True, slots=True)
class Report:
    """What one report says.

    Attributes:
        instance_key: its instance.
        object_key: the object it was read from.
        batch: that object's batch.
        sha256: digest of its bytes.
        labels: their ``image`` is a SOP Instance UID.
    """

    instance_key: str
    object_key: str
    batch: str
    sha256: str
    labels: tuple[Label, ...]


def read_reports(lake: Lake) -> Iterator[Report]:
    """The reports of the identified lake with findings of known codes or words, older ones first."""
    return _read(lake, "silver", "true")


def read_annotations(lake: Lake) -> Iterator[Report]:
    """The same of the reports that people have sent to the research side."""
    return _read(lake, "deid", "instance_key IN (SELECT annotation_key FROM gold.annotation)")


def _read(lake: Lake, schema: str, which: str) -> Iterator[Report]:
    codes = sorted({value for _, value in TASKS})
    parameters: list[object] = [codes, [*codes, FREE_TEXT], *COMMENT, *ALGORITHM_NAME]
    nodes = lake.query(_NODES.format(schema=schema, which=which), parameters).to_pylist()
    for _, document in groupby(nodes, key=lambda node: node["object_key"]):
        report = report_of(list(document))
        if report.labels:
            yield report


def report_of(nodes: Sequence[Node]) -> Report:
    """The labels in one content tree.

    Args:
        nodes: its rows, in the order of the document.
    """
    root = nodes[0]
    observer = next(
        (str(n["person_name_value"] or "") for n in nodes if _code(n["concept_name"]) == PERSON_OBSERVER), ""
    )
    labels = [label for node in nodes for label in _labels(node, nodes, observer, root["content_datetime"])]
    return Report(
        instance_key=str(root["instance_key"]),
        object_key=str(root["object_key"]),
        batch=str(root["arrival_batch"]),
        sha256=str(root["content_sha256"]),
        labels=tuple(labels),
    )


def _labels(node: Node, nodes: Sequence[Node], observer: str, at: datetime | None) -> Iterator[Label]:
    stated = _stated(node, nodes)
    if stated is None:
        return
    task, number = stated
    group = _group_of(str(node["node_path"]), nodes)
    inside = list(_below(group, nodes)) if group else []
    images = {str(n["referenced_sop_instance_uid"]) for n in inside if _is_image(n)}
    if not images:
        images = {str(n["referenced_sop_instance_uid"]) for n in nodes if _is_image(n) and n["is_of_study"]}
    for image in sorted(images):
        for box in (None, *dict.fromkeys(_boxes(image, inside) if number != 0 else ())):
            yield Label(
                image=image,
                task=task,
                value=value_of(task, number),
                number=number,
                place=str(node["node_path"]),
                box=box,
                annotator=observer,
                method=Method.REPORT,
                labelled_at=at,
            )


def _stated(node: Node, nodes: Sequence[Node]) -> tuple[str, float | None] | None:
    """The task a content item is about, and what it says; None when it states no finding that is known."""
    name, value = _code(node["concept_name"]), _code(node["concept_value"])
    if name in FINDING and value in TASKS:
        children = (n for n in nodes if n["parent_node_path"] == node["node_path"])
        said = [PRESENCE[code] for n in children if (code := _code(n["concept_value"])) in PRESENCE]
        return TASKS[value], said[0] if said else 1.0
    if name in TASKS and value in PRESENCE:
        return TASKS[name], PRESENCE[value]
    if name in FINDING and value[1] == FREE_TEXT:
        return said_in_words(str(node["concept_value"]["code_meaning"] or ""))
    if name == COMMENT and _group_of(str(node["node_path"]), nodes):
        return said_in_words(str(node["text_value"] or ""))
    return None


def _group_of(path: str, nodes: Iterable[Node]) -> str:
    """Path of the innermost measurement group around a content item, or nothing."""
    groups = [str(n["node_path"]) for n in nodes if _code(n["concept_name"]) == MEASUREMENT_GROUP]
    return max((group for group in groups if path.startswith(f"{group}.")), key=len, default="")


def _below(path: str, nodes: Iterable[Node]) -> Iterator[Node]:
    return (n for n in nodes if str(n["node_path"]).startswith(f"{path}."))


def _boxes(image: str, nodes: Sequence[Node]) -> Iterator[Box]:
    """What the outlines drawn on an image enclose."""
    for node in nodes:
        drawn_on = {
            str(n["referenced_sop_instance_uid"]) for n in _below(str(node["node_path"]), nodes) if _is_image(n)
        }
        box = _enclosed(str(node["graphic_type"]), list(node["graphic_data"] or ())) if image in drawn_on else None
        if box and min(box[:2]) >= 0 and min(box[2:]) > 0:
            yield box


def _enclosed(graphic: str, points: Sequence[float]) -> Box | None:
    """The box around an outline (PS3.3 C.18.6.1.2); a line or a point has none."""
    columns, rows = points[0::2], points[1::2]
    if graphic == "POLYLINE" and len(points) >= 6:
        return min(columns), min(rows), max(columns) - min(columns), max(rows) - min(rows)
    if graphic == "CIRCLE" and len(points) == 4:  # its centre, and a point on it
        radius = math.hypot(columns[1] - columns[0], rows[1] - rows[0])
        return columns[0] - radius, rows[0] - radius, 2 * radius, 2 * radius
    if graphic == "ELLIPSE" and len(points) == 8:  # the ends of its long axis, then those of its short one
        width, height = (math.hypot(axis[1] - axis[0], axis[3] - axis[2]) for axis in (columns, rows))
        return sum(columns[:2]) / 2 - width / 2, sum(rows[:2]) / 2 - height / 2, width, height
    return None


def _is_image(node: Node) -> bool:
    return node["value_type"] == "IMAGE" and bool(node["referenced_sop_instance_uid"])


def _code(code: Mapping[str, Any] | None) -> Code:
    return (str(code["coding_scheme_designator"]), str(code["code_value"])) if code else ("", "")


_NODES = """
WITH image AS (
    SELECT instance_key, sop_instance_uid, study_key, object_key, content_sha256, content_datetime,
        dicom_instance.arrival_batch
    FROM {schema}.dicom_instance JOIN {schema}.dicom_series USING (series_key)
    WHERE version_state = 'CURRENT'
), report AS (
    SELECT DISTINCT instance_key FROM {schema}.dicom_sr_content_item
    WHERE (concept_name.code_value IN (SELECT unnest(?)) OR concept_value.code_value IN (SELECT unnest(?))
            OR concept_name.coding_scheme_designator = ? AND concept_name.code_value = ?)
        AND {which}
    EXCEPT
    SELECT instance_key
    FROM {schema}.dicom_sr_content_item JOIN {schema}.dicom_structured_report_header USING (instance_key)
    WHERE concept_name.coding_scheme_designator = ? AND concept_name.code_value = ?
        AND verification_flag IS DISTINCT FROM 'VERIFIED'
)
SELECT document.instance_key, document.object_key, document.arrival_batch, document.content_sha256,
    document.content_datetime, node_path, parent_node_path, value_type, concept_name, concept_value, text_value,
    person_name_value, graphic_type, graphic_data, referenced_sop_instance_uid,
    coalesce(target.study_key = document.study_key, false) AS is_of_study
FROM {schema}.dicom_sr_content_item AS item
JOIN report USING (instance_key)
JOIN image AS document USING (instance_key)
LEFT JOIN image AS target ON target.sop_instance_uid = item.referenced_sop_instance_uid
ORDER BY document.content_datetime NULLS FIRST, document.object_key, node_path
"""
