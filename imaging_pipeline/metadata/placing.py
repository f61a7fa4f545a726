"""One stored header → its place among patients, studies, series and instances."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from imaging_pipeline.dicom.values import is_uid
from imaging_pipeline.errors import PoisonInput, Reason
from imaging_pipeline.metadata.frames import Frames
from imaging_pipeline.metadata.projection import Elements, find, text
from imaging_pipeline.objects.model import key_of
from imaging_pipeline.sources import ElementMode

_DEVICE = ("00080070", "00081090", "00181000", "00081010", "00080080")
"""Manufacturer, model, serial number, station and institution: with the software they tell devices apart."""

_SOFTWARE_VERSIONS = "00181020"

_UIDS: Mapping[str, str] = MappingProxyType(
    {"00080018": "SOP Instance UID", "0020000D": "Study Instance UID", "0020000E": "Series Instance UID"}
)


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
        element_mode: which of its elements become rows of ``dicom_element``.
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
    element_mode: ElementMode = ElementMode.ALL


@dataclass(frozen=True)
class Placed:
    """A header that has its place.

    Attributes:
        stored: the header as it is stored.
        elements: the same, parsed.
        keys: keys of its instance, series, study, patient and equipment, by column name.
        patient_domain: issuer of its patient's identifier, or its source.
        patient_id: as stated, or made from the study where none is.
    """

    stored: StoredObject
    elements: Elements
    keys: Mapping[str, str]
    patient_domain: str
    patient_id: str

    @functools.cached_property
    def frames(self) -> Frames:
        """Its frames."""
        return Frames(self.elements, self.stored.size)

    @functools.cached_property
    def modality(self) -> str | None:
        """Modality (0008,0060)."""
        return text(self.elements, "00080060")


def place(stored: StoredObject) -> Placed:
    """Find the place of an object.

    Raises:
        PoisonInput: MISSING_UID or UID_INVALID: it cannot be placed among studies, series and instances.
    """
    elements: Elements = json.loads(stored.header_json)
    sop_uid, study_uid, series_uid = (_uid(elements, tag) for tag in _UIDS)
    domain = text(elements, "00100021") or stored.source_name
    patient_id = text(elements, "00100020") or f"NO_PID:{study_uid}"
    device = [text(elements, tag) or "" for tag in _DEVICE]
    versions = [str(value).strip() for value in find(elements, _SOFTWARE_VERSIONS) or []]
    keys = {
        "instance_key": key_of(sop_uid),
        "series_key": key_of(series_uid),
        "study_key": key_of(study_uid),
        "patient_key": key_of(domain, patient_id),
        "equipment_key": key_of(*device, "\\".join(versions)),
    }
    return Placed(stored, elements, keys, domain, patient_id)


def _uid(elements: Elements, tag: str) -> str:
    value = text(elements, tag)
    if value is None:
        raise PoisonInput(Reason.MISSING_UID, f"no {_UIDS[tag]}", dicom_path=tag)
    if not is_uid(value):
        raise PoisonInput(Reason.UID_INVALID, f"the {_UIDS[tag]} is no legal UID (PS3.5 9.1)", dicom_path=tag)
    return value
