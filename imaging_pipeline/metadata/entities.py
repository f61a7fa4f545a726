"""One stored header → its candidate row in each silver table.

Pure: the same header gives the same rows. The same code makes the de-identified tables from de-identified
headers, so both sides have one definition. Which candidate of a key is kept is the lake's business.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from types import MappingProxyType

from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID

from imaging_pipeline.dicom.values import age_years, is_uid
from imaging_pipeline.errors import Issue, PoisonInput, Reason
from imaging_pipeline.lake import registry
from imaging_pipeline.metadata.projection import Elements, find, project, text
from imaging_pipeline.objects.model import key_of

PROJECTION_MODALITIES = frozenset({"CR", "DX", "IO", "MG", "XA", "RF", "PX"})
"""Modalities with a projection X-ray acquisition (PS3.3 C.7.3.1.1.1)."""

DAYS_PER_YEAR = 365.2425

_EQUIPMENT_IDENTITY = (
    "manufacturer",
    "manufacturer_model_name",
    "device_serial_number",
    "station_name",
    "institution_name",
    "software_versions",
)

_UIDS: Mapping[str, str] = MappingProxyType(
    {"00080018": "SOP Instance UID", "0020000D": "Study Instance UID", "0020000E": "Series Instance UID"}
)

Rows = dict[str, dict[str, object]]
"""One candidate row by table name."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A header and what is known of the object it came from.

    Attributes:
        object_key: key of the object version.
        storage_uri: where its bytes are.
        source_name: its patient domain when the header names no issuer.
        sha256: digest of its bytes.
        size: bytes.
        pixel_data_offset: where its pixel data begins, or None.
        header_json: DICOM JSON Model.
        has_pixel: there is pixel data.
        transfer_syntax_uid: declared or found.
        arrival_batch: its batch.
        row_version: orders versions of one instance, series, study or patient.
        role: ``ORIGINAL`` or ``DEIDENTIFIED``.
    """

    object_key: str
    storage_uri: str
    source_name: str
    sha256: str
    size: int
    pixel_data_offset: int | None
    header_json: str
    has_pixel: bool
    transfer_syntax_uid: str | None
    arrival_batch: str
    row_version: str
    role: str = "ORIGINAL"


def rows_of(stored: StoredObject) -> tuple[Rows, list[Issue]]:
    """Candidate rows of one object.

    Raises:
        PoisonInput: MISSING_UID or UID_INVALID: it cannot be placed among studies, series and instances.
    """
    elements: Elements = json.loads(stored.header_json)
    sop_uid, study_uid, series_uid = (_uid(elements, tag) for tag in _UIDS)
    keys = {"instance": key_of(sop_uid), "study": key_of(study_uid), "series": key_of(series_uid)}
    rows: Rows = {}
    issues: list[Issue] = []
    for name in _tables_for(elements):
        rows[name], found = project(elements, registry.table(name))
        issues += found
    patient = _complete_patient(rows["dicom_patient"], stored, study_uid)
    _complete_study(rows["dicom_study"], rows["dicom_patient"], keys["study"], patient)
    _complete_series(rows["dicom_series"], elements, keys["series"], keys["study"])
    _complete_instance(rows["dicom_instance"], stored, keys["instance"], keys["series"])
    _complete_image(rows, elements, stored, keys["instance"])
    rows["series_equipment"] = _complete_equipment(rows["dicom_equipment"], keys["series"])
    rows["dicom_file_location"] = _location(stored, keys["instance"]) | {
        "uid_key": keys["instance"],
        "series_key": keys["series"],
        "study_key": keys["study"],
        "patient_key": patient,
        "equipment_key": rows["dicom_equipment"]["equipment_key"],
    }
    for row in rows.values():
        row["arrival_batch"], row["row_version"] = stored.arrival_batch, stored.row_version
    return rows, list(dict.fromkeys(issues))


def _uid(elements: Elements, tag: str) -> str:
    value = text(elements, tag)
    if value is None:
        raise PoisonInput(Reason.MISSING_UID, f"no {_UIDS[tag]}", dicom_path=tag)
    if not is_uid(value):
        raise PoisonInput(Reason.UID_INVALID, f"the {_UIDS[tag]} is no legal UID (PS3.5 9.1)", dicom_path=tag)
    return value


def _tables_for(elements: Elements) -> list[str]:
    names = ["dicom_patient", "dicom_study", "dicom_series", "dicom_instance", "dicom_equipment"]
    if find(elements, "00280010"):
        names.append("dicom_image_pixel")
    if text(elements, "00080060") in PROJECTION_MODALITIES:
        names.append("dicom_xray_acquisition")
    return names


def _complete_patient(row: dict[str, object], stored: StoredObject, study_uid: str) -> str:
    domain = str(row.get("issuer_of_patient_id") or stored.source_name)
    patient_id = str(row.get("patient_id") or f"NO_PID:{study_uid}")
    row["patient_domain"], row["patient_id"], row["source_system"] = domain, patient_id, stored.source_name
    row["patient_key"] = key_of(domain, patient_id)
    return str(row["patient_key"])


def _complete_study(row: dict[str, object], patient: dict[str, object], study_key: str, patient_key: str) -> None:
    row["study_key"], row["patient_key"] = study_key, patient_key
    row["study_datetime"] = _moment(row.get("study_date"), row.get("study_time"))
    years = age_years(str(row["patient_age"])) if row.get("patient_age") else None
    born, studied = patient.get("patient_birth_date"), row.get("study_date")
    if years is None and isinstance(born, date) and isinstance(studied, date) and born <= studied:
        years = round((studied - born).days / DAYS_PER_YEAR, 2)
    row["patient_age_years"] = years


def _complete_series(row: dict[str, object], elements: Elements, series_key: str, study_key: str) -> None:
    image_type = [str(value).upper() for value in find(elements, "00080008") or []]
    frames = text(elements, "00280008")
    row["series_key"], row["study_key"] = series_key, study_key
    row["series_datetime"] = _moment(row.get("series_date"), row.get("series_time"))
    row["is_localizer"] = "LOCALIZER" in image_type
    row["is_derived"] = image_type[:1] == ["DERIVED"]
    row["is_multiframe"] = bool(frames and frames.isdecimal() and frames.lstrip("0") not in ("", "1"))


def _complete_instance(row: dict[str, object], stored: StoredObject, instance_key: str, series_key: str) -> None:
    row["instance_key"], row["series_key"] = instance_key, series_key
    row["sop_class_name"] = _registered_name(str(row.get("sop_class_uid")))
    row["transfer_syntax_uid"] = stored.transfer_syntax_uid
    row["content_datetime"] = _moment(row.get("content_date"), row.get("content_time"))
    row["has_pixel"] = stored.has_pixel
    row["object_key"], row["content_sha256"] = stored.object_key, stored.sha256
    row["version_no"], row["version_state"] = 1, "CURRENT"


def _complete_image(rows: Rows, elements: Elements, stored: StoredObject, instance_key: str) -> None:
    if (pixel := rows.get("dicom_image_pixel")) is not None:
        pixel["instance_key"] = instance_key
        pixel["has_modality_lut"] = "00283000" in elements
        pixel["has_voi_lut"] = "00283010" in elements
        pixel["has_icc_profile"] = "00282000" in elements
        pixel["has_overlay"] = any(tag[:2] == "60" and tag[4:] == "3000" for tag in elements)
        pixel["is_encapsulated"] = _is_encapsulated(stored.transfer_syntax_uid)
        pixel["frame_bytes"] = _frame_bytes(pixel)
    if (xray := rows.get("dicom_xray_acquisition")) is not None:
        xray["instance_key"] = instance_key


def _complete_equipment(row: dict[str, object], series_key: str) -> dict[str, object]:
    row["equipment_key"] = key_of(*(str(row.get(name) or "") for name in _EQUIPMENT_IDENTITY))
    return {"series_key": series_key, "equipment_key": row["equipment_key"], "purpose_of_reference": "ACQUISITION"}


def _location(stored: StoredObject, instance_key: str) -> dict[str, object]:
    return {
        "location_key": key_of(instance_key, stored.object_key),
        "instance_key": instance_key,
        "object_key": stored.object_key,
        "storage_uri": stored.storage_uri,
        "storage_provider": stored.storage_uri.partition("://")[0],
        "transfer_syntax_uid": stored.transfer_syntax_uid,
        "checksum_sha256": stored.sha256,
        "file_size_bytes": stored.size,
        "role": stored.role,
        "version_no": 1,
        "pixel_data_offset": stored.pixel_data_offset,
    }


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


def _frame_bytes(pixel: Mapping[str, object]) -> int | None:
    """Bytes of one uncompressed frame (PS3.5 8.1.1)."""
    factors = [pixel.get(name) for name in ("image_rows", "image_columns", "samples_per_pixel", "bits_allocated")]
    if not all(isinstance(factor, int) for factor in factors):
        return None
    rows, columns, samples, bits = (int(str(factor)) for factor in factors)
    return (rows * columns * samples * bits + 7) // 8
