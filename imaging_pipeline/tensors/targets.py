"""What tensors of a batch are made from: released images that a recipe selects, and whether they are still released.

Opens the research lake only. Must not contain pixels or shards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

import duckdb

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.tensors.build import TensorSource
from imaging_pipeline.tensors.recipe import Recipe
from imaging_pipeline.tensors.volumes import Slice

PROOFS: Final = "deid.deid_verification"

RELEASED_SERIES: Final = f"""
    SELECT series_key, max(proof.arrival_batch) AS arrival_batch,
        sha256(string_agg(instance_key || ' ' || proof.content_sha256, chr(10) ORDER BY instance_key)) AS content_sha256
    FROM {PROOFS} AS proof JOIN deid.dicom_instance USING (instance_key)
    WHERE has_pixel AND series_key IN (SELECT unnest($series))
    GROUP BY series_key
"""
"""Of some series all that is released: the batch it was completed by, and a digest over its images."""

NOT_AS_RELEASED: Final = f"""coalesce(
    CASE WHEN instance_key IS NULL
        THEN (series_key, source_content_sha256, arrival_batch)
            NOT IN (SELECT (series_key, content_sha256, arrival_batch) FROM ({RELEASED_SERIES}))
        ELSE (instance_key, source_content_sha256, arrival_batch)
            NOT IN (SELECT (instance_key, content_sha256, arrival_batch) FROM {PROOFS})
    END, true)"""
"""Of a tensor's row: it is not made from what is released now, or another batch has released it since."""

_IMAGES: Final = """
    FROM deid.dicom_instance
    JOIN deid.dicom_series USING (series_key)
    JOIN deid.dicom_study USING (study_key)
    JOIN deid.dicom_patient USING (patient_key)
    JOIN deid.dicom_file_location USING (instance_key)
    LEFT JOIN deid.dicom_image_pixel USING (instance_key)
    LEFT JOIN deid.dicom_xray_acquisition USING (instance_key)
"""
"""The rows of an image, whose columns a recipe's condition may name."""


@dataclass(frozen=True, slots=True)
class ImageTarget:
    """A de-identified image.

    Attributes:
        source: whose tensors it becomes.
        storage_uri: its file.
        recipes: positions of the recipes that select it.
    """

    source: TensorSource
    storage_uri: str
    recipes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class VolumeTarget:
    """A de-identified series that becomes a volume.

    Attributes:
        series_key: the series.
        patient_id: its patient's pseudonym.
        content_sha256: digest over all that is released of it.
        slices: what the recipe selects of it.
        files: URI and SHA-256 of each instance's file, by instance key.
        recipe: position of the recipe.
    """

    series_key: str
    patient_id: str
    content_sha256: str
    slices: tuple[Slice, ...]
    files: Mapping[str, tuple[str, str]]
    recipe: int


def image_targets(lake: Lake, batch_id: str, recipes: Sequence[Recipe]) -> list[ImageTarget]:
    """Images that a batch has released and a recipe for images selects, in the order of their keys.

    Raises:
        ConfigurationError: a recipe's condition does not fit the tables.
    """
    positions = [position for position, recipe in enumerate(recipes) if recipe.volume is None]
    if not positions:
        return []
    rows = _rows(
        lake,
        f"""SELECT instance_key, series_key, sop_instance_uid, patient_id, storage_uri,
            coalesce(dicom_image_pixel.number_of_frames, 1) AS number_of_frames, {_selection(recipes, positions)}
        {_IMAGES} WHERE dicom_instance.arrival_batch = $batch AND has_pixel ORDER BY instance_key""",
        {"batch": batch_id},
    )
    found = (
        ImageTarget(
            TensorSource(
                instance_key=row["instance_key"],
                sop_instance_uid=row["sop_instance_uid"],
                patient_id=row["patient_id"],
                series_key=row["series_key"],
                number_of_frames=row["number_of_frames"],
            ),
            row["storage_uri"],
            tuple(position for position in positions if _takes(recipes[position], position, row)),
        )
        for row in rows
    )
    return [target for target in found if target.recipes]


def volume_targets(lake: Lake, batch_id: str, recipes: Sequence[Recipe]) -> list[VolumeTarget]:
    """Series whose latest image a batch has released, with all their images that a recipe for volumes selects.

    A study may still be open: when more images of the series come, their batch makes the volume anew.

    Raises:
        ConfigurationError: a recipe's condition does not fit the tables.
    """
    positions = [position for position, recipe in enumerate(recipes) if recipe.volume is not None]
    series = _series_of(lake, batch_id) if positions else []
    if not series:
        return []
    rows = _rows(
        lake,
        f"""SELECT series_key, released.content_sha256 AS series_sha256, patient_id, instance_key, storage_uri,
            proved_sha256, image_rows, image_columns, coalesce(frame_number, 1) AS frame_number,
            image_position_patient, image_orientation_patient, pixel_spacing, {_selection(recipes, positions)}
        {_IMAGES}
        JOIN ({RELEASED_SERIES}) AS released USING (series_key)
        JOIN (SELECT instance_key, content_sha256 AS proved_sha256 FROM {PROOFS}) USING (instance_key)
        LEFT JOIN (
            SELECT instance_key, frame_number, image_position_patient, image_orientation_patient, pixel_spacing
            FROM deid.dicom_image_plane) USING (instance_key)
        WHERE released.arrival_batch = $batch AND has_pixel ORDER BY series_key, instance_key, frame_number""",
        {"batch": batch_id, "series": series},
    )
    return [
        target
        for _, group in groupby(rows, key=lambda row: row["series_key"])
        for target in _volumes(list(group), recipes, positions)
    ]


def _series_of(lake: Lake, batch_id: str) -> list[str]:
    """Series of which the batch has released an image."""
    rows = lake.rows(
        f"""SELECT DISTINCT series_key FROM {PROOFS} AS proof JOIN deid.dicom_instance USING (instance_key)
        WHERE proof.arrival_batch = ? AND has_pixel""",
        [batch_id],
    )
    return [str(key) for (key,) in rows]


def _volumes(
    rows: Sequence[Mapping[str, Any]], recipes: Sequence[Recipe], positions: Iterable[int]
) -> Iterator[VolumeTarget]:
    """The targets of one series, by the recipes that select anything of it."""
    for position in positions:
        taken = [row for row in rows if _takes(recipes[position], position, row)]
        if taken:
            yield VolumeTarget(
                series_key=taken[0]["series_key"],
                patient_id=taken[0]["patient_id"],
                content_sha256=taken[0]["series_sha256"],
                slices=tuple(_slice(row) for row in taken),
                files={row["instance_key"]: (row["storage_uri"], row["proved_sha256"]) for row in taken},
                recipe=position,
            )


def _slice(row: Mapping[str, Any]) -> Slice:
    def numbers(name: str) -> tuple[float, ...] | None:
        values = row[name]
        return None if values is None or None in values else tuple(values)

    return Slice(
        instance_key=row["instance_key"],
        frame_number=row["frame_number"],
        position=numbers("image_position_patient"),
        orientation=numbers("image_orientation_patient"),
        spacing=numbers("pixel_spacing"),
        rows=row["image_rows"] or 0,
        columns=row["image_columns"] or 0,
    )


def _selection(recipes: Sequence[Recipe], positions: Iterable[int]) -> str:
    """Columns that say what the recipes ask of an image; conditions were checked when the recipe was loaded."""
    conditions = (
        f"coalesce(CAST((\n{recipes[position].select.where or 'true'}\n) AS BOOLEAN), false) AS is_taken_{position}"
        for position in positions
    )
    return ", ".join(("modality", "body_part_examined", "view_position", *conditions))


def _takes(recipe: Recipe, position: int, row: Mapping[str, Any]) -> bool:
    codes = (row["modality"], row["body_part_examined"], row["view_position"])
    return bool(row[f"is_taken_{position}"]) and recipe.select.takes(*codes)


def _rows(lake: Lake, sql: str, parameters: Mapping[str, object]) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = lake.connection.execute(sql, dict(parameters)).to_arrow_table().to_pylist()
    except (duckdb.BinderException, duckdb.CatalogException) as error:
        raise ConfigurationError(f"recipe: select.where: {str(error).splitlines()[0]}") from None
    except duckdb.ConversionException:
        raise ConfigurationError("recipe: select.where: a value cannot be converted; use TRY_CAST") from None
    return rows
