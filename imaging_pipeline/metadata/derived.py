"""What of a row the registry's declaration cannot say: values that follow from several attributes, or from the object.

One function for each table that needs one; it completes the rows in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from types import MappingProxyType

from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID

from imaging_pipeline.dicom.values import age_years, parse_date
from imaging_pipeline.metadata.frames import complete_planes
from imaging_pipeline.metadata.placing import Placed
from imaging_pipeline.metadata.projection import Elements, Row, find, items, text
from imaging_pipeline.metadata.structures import segment_frame_counts
from imaging_pipeline.objects.model import key_of

DAYS_PER_YEAR = 365.2425

_MAKERS: Mapping[str, str] = MappingProxyType(
    {
        "AGFA": "AGFA", "CANON": "CANON", "CARESTREAM": "CARESTREAM", "EASTMAN KODAK": "CARESTREAM", "ELEKTA": "ELEKTA",
        "ESAOTE": "ESAOTE", "FUJI": "FUJIFILM", "GE ": "GE", "GEMS": "GE", "GENERAL ELECTRIC": "GE",
        "HITACHI": "HITACHI", "HOLOGIC": "HOLOGIC", "KODAK": "CARESTREAM", "KONICA": "KONICA MINOLTA",
        "MEDISON": "SAMSUNG", "MINDRAY": "MINDRAY", "PHILIPS": "PHILIPS", "SAMSUNG": "SAMSUNG", "SHIMADZU": "SHIMADZU",
        "SIEMENS": "SIEMENS", "TOSHIBA": "CANON", "UIH": "UNITED IMAGING", "UNITED IMAGING": "UNITED IMAGING",
        "VARIAN": "VARIAN",
    }
)  # fmt: skip
"""How makers' names begin, and one spelling for each; Canon took over Toshiba's, Carestream Kodak's devices."""

_FRAME_FACTORS = ("00280010", "00280011", "00280002", "00280100")
"""Rows, columns, samples per pixel, bits allocated."""

_MAX_US = 65_535


def complete(name: str, placed: Placed, rows: list[Row]) -> None:
    """Complete the rows of a table, where there is something to complete."""
    if name in _COMPLETIONS:
        _COMPLETIONS[name](placed, rows)


def location_row(placed: Placed) -> Row:
    """The row of ``dicom_file_location``: where the object is, and the keys of all it belongs to."""
    stored, keys = placed.stored, placed.keys
    provider, _, rest = stored.storage_uri.partition("://")
    container, path = _container_and_path(provider, rest)
    return {
        **keys,
        "location_key": key_of(keys["instance_key"], stored.object_key),
        "uid_key": keys["instance_key"],
        "object_key": stored.object_key,
        "storage_uri": stored.storage_uri,
        "storage_provider": provider,
        "storage_container": container,
        "object_path": path,
        "ingestion_source": stored.source_name,
        "transfer_syntax_uid": stored.transfer_syntax_uid,
        "checksum_sha256": stored.sha256,
        "file_size_bytes": stored.size,
        "role": stored.role,
        "version_no": 1,
        "pixel_data_offset": stored.pixel_data_offset,
    }


def device_row(placed: Placed) -> Row:
    """The row of ``series_equipment`` for the device that made the object."""
    keys = placed.keys
    return {
        "series_key": keys["series_key"],
        "equipment_key": keys["equipment_key"],
        "purpose_of_reference": "ACQUISITION",
    }


def _container_and_path(provider: str, rest: str) -> tuple[str | None, str]:
    archive, is_member, member = rest.rpartition("!")
    if provider.startswith("zip") and is_member:
        return archive, member
    if provider == "s3":
        bucket, _, key = rest.partition("/")
        return bucket, key
    return None, rest


def _complete_patient(placed: Placed, rows: list[Row]) -> None:
    for row in rows:
        row["patient_domain"], row["patient_id"] = placed.patient_domain, placed.patient_id
        row["source_system"] = placed.stored.source_name


def _complete_study(placed: Placed, rows: list[Row]) -> None:
    for row in rows:
        row["study_datetime"] = _moment(row.get("study_date"), row.get("study_time"))
        row["patient_age_years"] = _age(placed, row)


def _age(placed: Placed, study: Row) -> float | None:
    """Age as stated, else from birth and study date (years)."""
    stated = study.get("patient_age")
    years = age_years(str(stated)) if stated else None
    born, studied = parse_date(text(placed.elements, "00100030")), study.get("study_date")
    if years is None and isinstance(born, date) and isinstance(studied, date) and born <= studied:
        years = round((studied - born).days / DAYS_PER_YEAR, 2)
    return years


def _complete_series(placed: Placed, rows: list[Row]) -> None:
    image_type = [str(value).upper() for value in find(placed.elements, "00080008") or []]
    frames = text(placed.elements, "00280008")
    for row in rows:
        row["series_datetime"] = _moment(row.get("series_date"), row.get("series_time"))
        row["is_localizer"] = "LOCALIZER" in image_type
        row["is_derived"] = image_type[:1] == ["DERIVED"]
        row["is_multiframe"] = bool(frames and frames.isdecimal() and frames.lstrip("0") not in ("", "1"))


def _complete_instance(placed: Placed, rows: list[Row]) -> None:
    stored = placed.stored
    for row in rows:
        row["sop_class_name"] = _registered_name(str(row.get("sop_class_uid")))
        row["transfer_syntax_uid"] = stored.transfer_syntax_uid
        row["content_datetime"] = _moment(row.get("content_date"), row.get("content_time"))
        row["has_pixel"] = stored.has_pixel
        row["object_key"], row["content_sha256"] = stored.object_key, stored.sha256
        row["version_no"], row["version_state"] = 1, "CURRENT"


def _complete_pixels(placed: Placed, rows: list[Row]) -> None:
    elements = placed.elements
    for row in rows:
        row["has_modality_lut"] = "00283000" in elements
        row["has_voi_lut"] = "00283010" in elements
        row["has_icc_profile"] = "00282000" in elements
        row["has_overlay"] = any(tag[:2] == "60" and tag[4:] == "3000" for tag in elements)
        row["is_encapsulated"] = _is_encapsulated(placed.stored.transfer_syntax_uid)
        row["frame_bytes"] = _frame_bytes(elements)


def _complete_frames(placed: Placed, rows: list[Row]) -> None:
    """Where the pixels of each frame are (bytes); of compressed ones only the pixel data tell."""
    offset, frame_bytes = placed.stored.pixel_data_offset, _frame_bytes(placed.elements)
    if offset is None or not frame_bytes or _is_encapsulated(placed.stored.transfer_syntax_uid) is not False:
        return
    for index, row in enumerate(rows):
        start = offset + index * frame_bytes
        if start + frame_bytes <= placed.stored.size:
            row["pixel_offset"], row["pixel_length"] = start, frame_bytes


def _complete_equipment(_placed: Placed, rows: list[Row]) -> None:
    for row in rows:
        maker = str(row.get("manufacturer") or "").upper()
        known = (name for start, name in _MAKERS.items() if f"{maker} ".startswith(start))
        row["manufacturer_normalized"] = next(known, maker) or None


def _complete_contrast(_placed: Placed, rows: list[Row]) -> None:
    for row in rows:
        row["is_contrast"] = bool(row.get("contrast_bolus_agent") or row.get("contrast_bolus_agent_code"))


def _complete_segments(placed: Placed, rows: list[Row]) -> None:
    counts = segment_frame_counts(placed.elements)
    referenced = text(placed.elements, "00081115", "0020000E")
    for row in rows:
        row["referenced_series_key"] = key_of(referenced) if referenced else None
        number = row.get("segment_number")
        row["frame_count"] = counts.get(number, 0) if isinstance(number, int) else None


def _complete_report(placed: Placed, rows: list[Row]) -> None:
    evidence = {
        text(instance, "00081155")
        for study in items(placed.elements, "0040A375")
        for series in items(study, "00081115")
        for instance in items(series, "00081199")
    }
    for row in rows:
        row["evidence_instance_count"] = len(evidence)
        row["content_item_count"] = _content_item_count(placed.elements)


def _content_item_count(elements: Elements) -> int:
    waiting, count = [elements], 0
    while waiting:
        count += 1
        waiting += items(waiting.pop(), "0040A730")
    return count


_COMPLETIONS: Mapping[str, Callable[[Placed, list[Row]], None]] = MappingProxyType(
    {
        "dicom_patient": _complete_patient,
        "dicom_study": _complete_study,
        "dicom_series": _complete_series,
        "dicom_instance": _complete_instance,
        "dicom_image_pixel": _complete_pixels,
        "dicom_frame": _complete_frames,
        "dicom_image_plane": lambda _placed, rows: complete_planes(rows),
        "dicom_equipment": _complete_equipment,
        "dicom_contrast_bolus": _complete_contrast,
        "dicom_segmentation_metadata": _complete_segments,
        "dicom_structured_report_header": _complete_report,
    }
)


def _moment(day: object, moment: object) -> datetime | None:
    if not isinstance(day, date):
        return None
    return datetime.combine(day, moment if isinstance(moment, time) else time())


def _is_encapsulated(transfer_syntax_uid: str | None) -> bool | None:
    if transfer_syntax_uid is None or not _registered_name(transfer_syntax_uid):
        return None
    uid = UID(transfer_syntax_uid)
    return uid.is_encapsulated if uid.is_transfer_syntax else None


def _registered_name(uid: str) -> str | None:
    """Name of a UID of PS3.6 A, or None. pydicom's own look-up warns with the value, which may be anything."""
    return str(UID_dictionary[uid][0]) if uid in UID_dictionary else None


def _frame_bytes(elements: Elements) -> int | None:
    """Bytes of one uncompressed frame (PS3.5 8.1.1); None when it is not stated in numbers of 16 bits."""
    values = [find(elements, tag) for tag in _FRAME_FACTORS]
    factors = [found[0] for found in values if found and isinstance(found[0], int) and 0 <= found[0] <= _MAX_US]
    if len(factors) != len(_FRAME_FACTORS):
        return None
    rows, columns, samples, bits = factors
    found = (rows * columns * samples * bits + 7) // 8
    return found if found < 2**63 else None
