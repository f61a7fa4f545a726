"""The labelled tensors a dataset may be made of, as the research lake has them: their label, place and groups."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import duckdb

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.tensors.assignment import LeftOut
from imaging_pipeline.tensors.definition import GROUPS, DatasetDefinition
from imaging_pipeline.tensors.selection import check_condition
from imaging_pipeline.tensors.splits import Split

OLDEST_BAND = 90
"""Ages from here on are one band, as 45 CFR 164.514(b)(2)(i)(C) has it."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tensor of a complete study with one label.

    Attributes:
        tensor_key: the tensor.
        instance_key: its instance in the research lake; empty for a volume.
        series_key: its series there.
        patient: pseudonym.
        tensor_sha256: digest of its bytes.
        tensor_uri: its shard.
        row: its row there.
        label_key: the label's row.
        label: 1.0 for the finding, 0.0 for none.
        label_source: where the label comes from.
        official: the side that came with the label.
    """

    tensor_key: str
    instance_key: str
    series_key: str
    patient: str
    tensor_sha256: str
    tensor_uri: str
    row: int
    label_key: str
    label: float
    label_source: str
    official: Split | None

    @property
    def subject_key(self) -> str:
        """The instance, or the series of a volume."""
        return self.instance_key or self.series_key


def find_candidates(
    lake: Lake, recipe_digest: str, definition: DatasetDefinition
) -> tuple[list[Candidate], Counter[LeftOut]]:
    """Labelled tensors of complete studies in the order of their keys, and how many were left out for their labels.

    Of several labels of one image those of the source named first are taken, or all where none is named; they must
    agree. A volume has the labels of its series and of its slices.

    Raises:
        ConfigurationError: the cohort cannot be used as a condition.
    """
    try:
        rows = lake.rows(_query(definition), {"recipe": recipe_digest, "task": definition.task})
    except duckdb.BinderException as error:  # it names columns, no values
        raise ConfigurationError(f"dataset: cohort: {error}") from None
    by_tensor: defaultdict[str, list[Candidate]] = defaultdict(list)
    for row in rows:
        *texts, position, label, official = row
        key, instance_key, series_key, patient, sha256, uri, label_key, source = map(str, texts)
        by_tensor[key].append(
            Candidate(
                tensor_key=key,
                instance_key=instance_key,
                series_key=series_key,
                patient=patient,
                tensor_sha256=sha256,
                tensor_uri=uri,
                row=int(str(position)),
                label_key=label_key,
                label=float(str(label)),
                label_source=source,
                official=Split(str(official)) if official in list(Split) else None,
            )
        )
    left_out: Counter[LeftOut] = Counter()
    chosen: list[Candidate] = []
    for found in by_tensor.values():
        of_one_source = _believed(found, definition.label_sources)
        if len({each.label for each in of_one_source}) == 1:
            chosen.append(of_one_source[0])
        elif of_one_source:
            left_out[LeftOut.LABELS_DISAGREE] += 1
    return chosen, left_out


def _believed(labels: Sequence[Candidate], sources: Sequence[str]) -> Sequence[Candidate]:
    """Those of one image from the first source that has any; all where no source is named."""
    of_sources = ([each for each in labels if each.label_source == source] for source in sources)
    return next((found for found in of_sources if found), []) if sources else labels


def groups_of(lake: Lake, subject_keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """What is known of released instances and series, by their keys and the group; what is unknown is missing."""
    names = ("subject_key", *_GROUP_COLUMNS)
    rows = lake.rows(_GROUPS, [list(subject_keys)])
    return {
        str(row[0]): {
            name: str(value) for name, value in zip(names[1:], row[1:], strict=True) if value not in (None, "")
        }
        for row in rows
    }


_GROUP_COLUMNS: Mapping[str, str] = {
    "sex": "patient_sex",
    "age": f"""CASE WHEN patient_age_years >= {OLDEST_BAND} THEN '{OLDEST_BAND}+' WHEN patient_age_years >= 0
        THEN printf('%02d-%02d', floor(patient_age_years / 10)::INT * 10, floor(patient_age_years / 10)::INT * 10 + 9)
        END""",
    "view": "view_position",
    "modality": "modality",
    "manufacturer": "manufacturer_normalized",
    "model": "manufacturer_model_name",
    "institution": "institution_name",
    "station": "station_name",
}
assert tuple(_GROUP_COLUMNS) == GROUPS

_IMAGES = """
deid.dicom_instance
JOIN deid.dicom_series USING (series_key)
JOIN deid.dicom_study USING (study_key)
JOIN deid.dicom_patient USING (patient_key)
LEFT JOIN deid.dicom_xray_acquisition USING (instance_key)
"""

_GROUPS = f"""
SELECT subject_key, {", ".join(f"min({column})" for column in _GROUP_COLUMNS.values())}
FROM {_IMAGES}
LEFT JOIN deid.dicom_file_location USING (instance_key)
LEFT JOIN deid.dicom_equipment USING (equipment_key)
JOIN (SELECT unnest(?) AS subject_key) ON subject_key IN (instance_key, series_key)
GROUP BY subject_key
"""

_CANDIDATES = """
WITH tensor AS (
    SELECT *, coalesce(instance_key, '') AS instance FROM gold.image_tensor WHERE recipe_id = $recipe
), made AS (
    SELECT study_key, count(*) AS objects FROM deid.dicom_instance JOIN deid.dicom_series USING (series_key)
    WHERE instance_key IN (SELECT instance_key FROM deid.made_object) GROUP BY study_key
), complete AS (
    SELECT instance_key, series_key FROM deid.dicom_instance
    JOIN deid.dicom_series USING (series_key)
    JOIN deid.dicom_study AS study USING (study_key)
    JOIN deid.study_state USING (study_key)
    LEFT JOIN made USING (study_key)
    WHERE state = 'COMPLETE' AND study.number_of_study_related_instances - coalesce(made.objects, 0) <= instances
), subject AS (
    SELECT tensor_key, instance_key, 'INSTANCE' AS subject_level, instance_key AS subject_key
    FROM tensor JOIN complete USING (instance_key) WHERE instance <> ''
    UNION ALL
    SELECT tensor_key, complete.instance_key, 'INSTANCE', complete.instance_key
    FROM tensor JOIN complete USING (series_key) WHERE instance = ''
    UNION ALL
    SELECT tensor_key, complete.instance_key, 'SERIES', series_key
    FROM tensor JOIN complete USING (series_key) WHERE instance = ''
)
SELECT DISTINCT tensor_key, instance, coalesce(tensor.series_key, ''), patient_pseudonym, tensor_sha256, tensor_uri,
    label_key, source, shard_row, label_numeric, official_split
FROM tensor JOIN subject USING (tensor_key) JOIN gold.label AS label USING (subject_level, subject_key)
WHERE task = $task AND label_numeric IS NOT NULL {cohort}
ORDER BY tensor_key, source, label_key
"""

_COHORT = """
AND subject.instance_key IN (
    SELECT instance_key FROM {images} WHERE coalesce(CAST((
{condition}
) AS BOOLEAN), false))
"""


def _query(definition: DatasetDefinition) -> str:
    if definition.cohort is None:
        return _CANDIDATES.format(cohort="")
    check_condition(definition.cohort, key="dataset: cohort", schemas=("deid", "gold"))
    return _CANDIDATES.format(cohort=_COHORT.format(images=_IMAGES, condition=definition.cohort))
