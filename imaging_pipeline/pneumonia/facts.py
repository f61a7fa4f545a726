"""What is known of released images besides their pixels, from the research lake: subgroups, metadata, the file.

It is what a model is evaluated by, and what a shortcut could be taken by. Opens the research lake.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from imaging_pipeline.lake.store import Lake
from imaging_pipeline.pneumonia.config import SOURCES
from imaging_pipeline.pneumonia.labels.model import SUBSET
from imaging_pipeline.tensors.candidates import groups_of

Fact = str | float

SUBGROUPS = ("sex", "age", "view", "manufacturer", "institution", "source", "collection")
"""By what a model is evaluated; ages are bands of ten years."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What is known of one image; what is not known is missing.

    Attributes:
        groups: value by name, of `SUBGROUPS` and of named subsets.
        sources: value by name, of `SOURCES`.
        metadata: of patient, device and exposure.
        file: of the released file and its matrix.
    """

    groups: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Fact] = field(default_factory=dict)
    file: Mapping[str, Fact] = field(default_factory=dict)


def facts_of(lake: Lake, instance_keys: Sequence[str], task: str) -> dict[str, ImageFacts]:
    """Facts of released images by instance key.

    Args:
        lake: the research lake.
        instance_keys: of the images.
        task: whose labels name the collection an image belongs to.

    Raises:
        TransientError: the lake is busy.
    """
    groups = groups_of(lake, instance_keys)
    rows = lake.query(_FACTS, [task, list(instance_keys)]).to_pylist()
    subsets: dict[str, dict[str, str]] = defaultdict(dict)
    for key, name in lake.rows(_SUBSETS, [f"{SUBSET}%", list(instance_keys)]):
        subsets[str(key)][str(name)] = "yes"
    return {key: _facts(row, groups.get(key, {}), subsets[key]) for row in rows if (key := str(row["instance_key"]))}


def _facts(row: Mapping[str, object], groups: Mapping[str, str], subsets: Mapping[str, str]) -> ImageFacts:
    origin = {name: str(row[name]) for name in ("source", "collection") if row[name]}
    named = dict(groups) | origin
    return ImageFacts(
        groups={name: named[name] for name in SUBGROUPS if name in named} | dict(subsets),
        sources={name: named[name] for name in SOURCES if name in named},
        metadata=_known(row, _METADATA) | {name: value for name, value in groups.items() if name != "age"},
        file=_known(row, _FILE),
    )


def _known(row: Mapping[str, object], names: Mapping[str, str]) -> dict[str, Fact]:
    return {
        name: float(value) if isinstance(value := row[name], int | float) else str(value)
        for name in names
        if row[name] not in (None, "")
    }


_METADATA: dict[str, str] = {
    "age_years": "patient_age_years",
    "body_part": "body_part_examined",
    "patient_position": "patient_position",
    "image_laterality": "image_laterality",
    "kvp": "kvp",
    "exposure": "exposure",
    "exposure_time": "exposure_time",
    "tube_current": "x_ray_tube_current",
    "distance": "distance_source_to_detector",
    "detector_type": "detector_type",
    "presentation_intent": "presentation_intent_type",
    "sop_class": "sop_class_uid",
    "intensity_sign": "pixel_intensity_relationship_sign",
}
"""Name of each fact and its column."""

_FILE: dict[str, str] = {
    "file_bytes": "file_size_bytes",
    "rows": "image_rows",
    "columns": "image_columns",
    "bits_allocated": "bits_allocated",
    "bits_stored": "bits_stored",
    "photometric": "photometric_interpretation",
    "transfer_syntax": "instance.transfer_syntax_uid",
    "lossy": "lossy_image_compression",
    "bytes_per_pixel": "file_size_bytes / nullif(image_rows * image_columns, 0)",
    "aspect": "image_columns / nullif(image_rows, 0)",
}

_ORIGIN = {"source": "ingestion_source", "collection": "label.source"}

_SUBSETS = """
SELECT DISTINCT subject_key, task FROM gold.label
WHERE task LIKE ? AND label_value = task AND subject_level = 'INSTANCE' AND subject_key IN (SELECT unnest(?))
ORDER BY ALL
"""

_FACTS = f"""
SELECT instance_key,
    {", ".join(f"any_value({column}) AS {name}" for name, column in (_METADATA | _FILE | _ORIGIN).items())}
FROM deid.dicom_instance AS instance
JOIN deid.dicom_series USING (series_key)
JOIN deid.dicom_study USING (study_key)
LEFT JOIN deid.dicom_xray_acquisition USING (instance_key)
LEFT JOIN deid.dicom_image_pixel USING (instance_key)
LEFT JOIN deid.dicom_file_location USING (instance_key)
LEFT JOIN (
    SELECT subject_key, min(source) AS source FROM gold.label
    WHERE task = ? AND subject_level = 'INSTANCE' GROUP BY subject_key
) AS label ON label.subject_key = instance_key
WHERE instance_key IN (SELECT unnest(?)) GROUP BY instance_key
"""
