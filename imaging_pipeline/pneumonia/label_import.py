"""Label files among the identified objects → rows of ``gold.label`` on the research side.

Files name images by their original names or UIDs, so the join happens here, on the identified side; only
research keys go out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from imaging_pipeline.deid.pseudonyms import ProjectKeys
from imaging_pipeline.errors import PoisonInput, Reason, TransientError
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.objects.model import ObjectVersion, key_of
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.pneumonia.labels import ImageLabel, is_rsna_labels, read_rsna_labels

TASK = "pneumonia"

SOURCE = "CSV:RSNA"
"""Provenance of labels read from files in the layout of the RSNA Pneumonia Detection Challenge."""

MAX_LABEL_FILE_BYTES = 500_000_000


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """What an import found.

    Attributes:
        files: label files read.
        malformed: files that have the header of a label file but other content.
        labels: labelled images in them.
        matched: labels joined to a released image.
        positive: matched labels with the finding.
    """

    files: int
    malformed: int
    labels: int
    matched: int
    positive: int


def import_labels(identified: Lake, research: Lake, keys: ProjectKeys, reader: ObjectReader) -> LabelCounts:
    """Bring ``gold.label`` up to date with the catalogued label files; a later file wins over an earlier one.

    A file that has vanished from its source takes its labels with it.

    Raises:
        TransientError: the lake is locked, or a label file is out of reach.
    """
    labels: dict[str, ImageLabel] = {}
    files = malformed = 0
    for target in _candidates(identified):
        try:
            data = reader.read_all(target)
            if not is_rsna_labels(data):
                continue
            labels |= {label.image_id: label for label in read_rsna_labels(data)}
            files += 1
        except PoisonInput as refusal:
            if refusal.reason is not Reason.MALFORMED:
                raise TransientError(
                    "a label file that was taken in cannot be read: put it back; no label changed"
                ) from None
            malformed += 1
    rows = list(_label_rows(labels, _instances(identified, keys), _released(research)))
    with research.transaction():
        where, parameters = "task = ? AND source = ?", [TASK, SOURCE]
        table = registry.table("label").rows(rows)
        research.replace_all("gold", "label", table, where=where, parameters=list(parameters))
    images = [row for row in rows if row["subject_level"] == "INSTANCE"]
    return LabelCounts(files, malformed, len(labels), len(images), sum(row["label_numeric"] == 1.0 for row in images))


def _candidates(identified: Lake) -> Iterator[ObjectVersion]:
    """CSV files of the catalog that are there, the newest version of each, oldest file first."""
    rows = identified.rows(
        """SELECT storage_uri, object_version, length, modification_time, source_name FROM bronze.object_catalog
        WHERE extension = '.csv' AND parse_status = 'SKIPPED' AND deleted_at IS NULL AND length <= ?
        QUALIFY row_number() OVER (PARTITION BY storage_uri ORDER BY modification_time DESC, object_version DESC) = 1
        ORDER BY modification_time, storage_uri""",
        [MAX_LABEL_FILE_BYTES],
    )
    for row in rows:
        yield ObjectVersion(*row)  # type: ignore[arg-type]


def _instances(identified: Lake, keys: ProjectKeys) -> Mapping[str, set[str]]:
    """Research keys of the instances a label's image id may mean: a file's stem or a SOP Instance UID.

    The name of a vanished file still counts (it may have been moved), unless another object has its place now.
    """
    rows = identified.rows(
        r"""SELECT url_decode(regexp_extract(storage_uri, '([^/!]+?)(\.[^./!]*)?$', 1)), sop_instance_uid
        FROM silver.dicom_instance JOIN silver.dicom_file_location USING (instance_key)
        WHERE version_state = 'CURRENT' AND (role <> 'DELETED' OR storage_uri NOT IN (
            SELECT storage_uri FROM silver.dicom_file_location WHERE role <> 'DELETED'))"""
    )
    found: defaultdict[str, set[str]] = defaultdict(set)
    for stem, uid in rows:
        research_key = key_of(keys.uid(str(uid)))
        found[str(stem)].add(research_key)
        found[str(uid)].add(research_key)
    return found


def _released(research: Lake) -> set[str]:
    return {str(key) for (key,) in research.rows("SELECT instance_key FROM deid.dicom_instance")}


def _label_rows(
    labels: Mapping[str, ImageLabel], instances: Mapping[str, set[str]], released: set[str]
) -> Iterator[dict[str, object]]:
    by_instance: defaultdict[str, list[ImageLabel]] = defaultdict(list)
    for image_id, label in labels.items():
        keys = instances.get(image_id, set())
        if len(keys) == 1 and keys <= released:  # a name that several images share is no name: no guess is made
            by_instance[next(iter(keys))].append(label)
    for instance_key, (label, *others) in by_instance.items():
        if any(other.pneumonia != label.pneumonia for other in others):
            continue  # two names of one image that contradict each other
        yield _row(instance_key, "INSTANCE", label)
        for ordinal, box in enumerate(label.boxes):
            yield _row(instance_key, "REGION", label, ordinal) | {"bbox": list(box)}


def _row(instance_key: str, level: str, label: ImageLabel, ordinal: int = 0) -> dict[str, object]:
    return {
        "label_key": key_of(instance_key, TASK, SOURCE, level, str(ordinal)),
        "subject_level": level,
        "subject_key": instance_key,
        "task": TASK,
        "label_value": "pneumonia" if label.pneumonia else "no pneumonia",
        "label_numeric": float(label.pneumonia),
        "source": SOURCE,
    }
