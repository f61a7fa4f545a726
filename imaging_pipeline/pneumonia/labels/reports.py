"""Findings in structured reports → labels of the images they are about.

Reads the content trees of silver. A finding is stated as ``Finding = pneumonia`` or as a qualitative evaluation
``pneumonia = present`` (PS3.16 TID 1500, TID 1501): in a measurement group about the group's images, elsewhere about
all images of the report that are of its own study, since prior images may be named for comparison.

A report that names an algorithm (TID 4019) counts once a person has verified it: a model must not learn from its own
output, which comes back from the PACS like any report.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from imaging_pipeline.lake.store import Lake
from imaging_pipeline.pneumonia.labels.findings import (
    ALGORITHM_NAME,
    FINDING,
    MEASUREMENT_GROUP,
    PERSON_OBSERVER,
    PRESENCE,
    TASKS,
    Code,
)
from imaging_pipeline.pneumonia.labels.model import Box, Label, Method, value_of

Node = Mapping[str, Any]
"""A row of ``dicom_sr_content_item`` with what is known of its document."""


@dataclass(frozen=True, slots=True)
class Report:
    """What one report says.

    Attributes:
        object_key: the object it was read from.
        batch: that object's batch.
        sha256: digest of its bytes.
        labels: their ``image`` is a SOP Instance UID.
    """

    object_key: str
    batch: str
    sha256: str
    labels: tuple[Label, ...]


def read_reports(lake: Lake) -> Iterator[Report]:
    """The reports with findings of known codes, older ones first.

    Args:
        lake: the identified lake.
    """
    codes = sorted({value for _, value in TASKS})
    nodes = lake.query(_NODES, [codes, codes, *ALGORITHM_NAME]).to_pylist()
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
    return Report(str(root["object_key"]), str(root["arrival_batch"]), str(root["content_sha256"]), tuple(labels))


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
        for box in (None, *_boxes(image, inside)):
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
        points = node["graphic_data"] or []
        if node["graphic_type"] != "POLYLINE" or len(points) < 6:
            continue
        drawn_on = {
            str(n["referenced_sop_instance_uid"]) for n in _below(str(node["node_path"]), nodes) if _is_image(n)
        }
        columns, rows = points[0::2], points[1::2]
        box = min(columns), min(rows), max(columns) - min(columns), max(rows) - min(rows)
        if image in drawn_on and min(box[:2]) >= 0 and min(box[2:]) > 0:
            yield box


def _is_image(node: Node) -> bool:
    return node["value_type"] == "IMAGE" and bool(node["referenced_sop_instance_uid"])


def _code(code: Mapping[str, Any] | None) -> Code:
    return (str(code["coding_scheme_designator"]), str(code["code_value"])) if code else ("", "")


_NODES = """
WITH image AS (
    SELECT instance_key, sop_instance_uid, study_key, object_key, content_sha256, content_datetime,
        dicom_instance.arrival_batch
    FROM silver.dicom_instance JOIN silver.dicom_series USING (series_key)
    WHERE version_state = 'CURRENT'
), report AS (
    SELECT DISTINCT instance_key FROM silver.dicom_sr_content_item
    WHERE concept_name.code_value IN (SELECT unnest(?)) OR concept_value.code_value IN (SELECT unnest(?))
    EXCEPT
    SELECT instance_key
    FROM silver.dicom_sr_content_item JOIN silver.dicom_structured_report_header USING (instance_key)
    WHERE concept_name.coding_scheme_designator = ? AND concept_name.code_value = ?
        AND verification_flag IS DISTINCT FROM 'VERIFIED'
)
SELECT document.object_key, document.arrival_batch, document.content_sha256, document.content_datetime,
    node_path, parent_node_path, value_type, concept_name, concept_value, person_name_value, graphic_type, graphic_data,
    referenced_sop_instance_uid, coalesce(target.study_key = document.study_key, false) AS is_of_study
FROM silver.dicom_sr_content_item AS item
JOIN report USING (instance_key)
JOIN image AS document USING (instance_key)
LEFT JOIN image AS target ON target.sop_instance_uid = item.referenced_sop_instance_uid
ORDER BY document.content_datetime NULLS FIRST, document.object_key, node_path
"""
