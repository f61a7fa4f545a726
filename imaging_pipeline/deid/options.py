"""The options of the Basic Application Level Confidentiality Profile (PS3.15 E.3) and their codes (PS3.16 CID 7050).

Owns names only. What an option does is in `rules`, `cleaner` and `pixels`.
"""

from __future__ import annotations

from typing import Final

SAFE_PRIVATE: Final = "retain_safe_private"
UIDS: Final = "retain_uids"
DEVICE: Final = "retain_device_identity"
INSTITUTION: Final = "retain_institution_identity"
PATIENT: Final = "retain_patient_characteristics"
FULL_DATES: Final = "retain_longitudinal_full_dates"
MODIFIED_DATES: Final = "retain_longitudinal_modified_dates"
DESCRIPTORS: Final = "clean_descriptors"
STRUCTURED_CONTENT: Final = "clean_structured_content"
GRAPHICS: Final = "clean_graphics"
PIXEL_DATA: Final = "clean_pixel_data"

OPTION_CODES: Final = {
    PIXEL_DATA: "113101",
    GRAPHICS: "113103",
    STRUCTURED_CONTENT: "113104",
    DESCRIPTORS: "113105",
    FULL_DATES: "113106",
    MODIFIED_DATES: "113107",
    PATIENT: "113108",
    DEVICE: "113109",
    UIDS: "113110",
    SAFE_PRIVATE: "113111",
    INSTITUTION: "113112",
}
"""Option, as profiles call it, to its code."""

OPTIONS: Final = tuple(OPTION_CODES)
"""Every option a profile may name."""

BASIC_CODE: Final = "113100"

METHOD_CODES: Final = {
    BASIC_CODE: "Basic Application Confidentiality Profile",
    "113101": "Clean Pixel Data Option",
    "113103": "Clean Graphics Option",
    "113104": "Clean Structured Content Option",
    "113105": "Clean Descriptors Option",
    "113106": "Retain Longitudinal Temporal Information Full Dates Option",
    "113107": "Retain Longitudinal Temporal Information Modified Dates Option",
    "113108": "Retain Patient Characteristics Option",
    "113109": "Retain Device Identity Option",
    "113110": "Retain UIDs Option",
    "113111": "Retain Safe Private Option",
    "113112": "Retain Institution Identity Option",
}
"""What the engine can claim, with the meanings of PS3.16 CID 7050."""

RETAINING: Final = (UIDS, DEVICE, INSTITUTION, PATIENT)
"""Options that keep values as they are (dates and private elements apart)."""

CLEANING: Final = (DESCRIPTORS, STRUCTURED_CONTENT, GRAPHICS)
"""Options that clean values instead of removing them (pixel data apart)."""
