"""From the bytes of an identified object to the bytes of a released one, or to a refusal.

Owns the order of things: read, judge, clean, mark, write, prove. Contains no storage and no keys of its own. Whatever
goes wrong on the way refuses the object; nothing half done is ever returned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Final

from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRBigEndian, ImplicitVRLittleEndian

from imaging_pipeline.deid import pixels, screen
from imaging_pipeline.deid.cleaner import CODE_KEYWORDS, Cleaner, Subject
from imaging_pipeline.deid.profile import Profile
from imaging_pipeline.deid.pseudonyms import ProjectKeys, is_standard_uid
from imaging_pipeline.deid.reading import element, elements, file_meta, quiet, read, transfer_syntax, values
from imaging_pipeline.deid.rules import REPLACED, Action, Rules
from imaging_pipeline.errors import PoisonInput, Reason

IMPLEMENTATION_CLASS_UID: Final = "2.25.303811949226512937862140934118093621877"
"""This implementation, in the file meta of everything it writes (PS3.7 D.3.3.2)."""

IMPLEMENTATION_VERSION_NAME: Final = "IMGPIPELINE_1"

METHOD_CODES: Final = {
    "113100": "Basic Application Confidentiality Profile",
    "113107": "Retain Longitudinal Temporal Information Modified Dates Option",
}
"""PS3.16 CID 7050, what the engine can claim."""

OWN_TEXTS: Final = (
    "PS3.15 Basic Profile",
    "YES",
    "MODIFIED",
    "REMOVED",
    screen.DUMMY_TEXT,
    IMPLEMENTATION_VERSION_NAME,
)
"""Texts the engine writes into released objects: no leak, even where a source has them as a name."""

_REQUIRED_UIDS: Final = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_META_ACTIONS: Final = {
    0x00020001: Action.KEEP, 0x00020002: Action.KEEP, 0x00020003: Action.UID, 0x00020010: Action.KEEP,
    0x00020012: Action.DUMMY, 0x00020013: Action.DUMMY,
}  # fmt: skip
_WRITTEN_TEXTS: Final = REPLACED | CODE_KEYWORDS | {"DeidentificationMethod", "ImplementationVersionName"}


@dataclass(frozen=True, slots=True)
class Deidentified:
    """A released object and, for the key holder only, what it came from.

    Attributes:
        data: complete Part 10 file in the source's transfer syntax, its pixel bytes untouched; the same source, key and
            profile give the same bytes.
        patient_id: the pseudonym.
        uid_map: original to new, of every UID that was replaced.
        original_patient_id: Patient ID of the source, or ``NO_PID:`` and the study's UID.
        patient_domain: Issuer of Patient ID of the source, or the domain the caller gave.
        actions: action code to number of source elements; sums to all elements of the source, file meta included.
    """

    data: bytes
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    patient_id: str
    uid_map: Mapping[str, str]
    original_patient_id: str
    patient_domain: str
    actions: Mapping[str, int]


class Deidentifier:
    """De-identifies objects under one profile with the keys of one project."""

    __slots__ = ("_keys", "_profile", "_rules")

    def __init__(self, profile: Profile, keys: ProjectKeys) -> None:
        self._profile = profile
        self._keys = keys
        self._rules = Rules(profile)

    def deidentify(self, data: bytes, *, patient_domain: str) -> Deidentified:
        """De-identify one object.

        Args:
            data: the whole object, with or without preamble and file meta.
            patient_domain: who gave the Patient ID its meaning (the source's name), unless the object says it.

        Raises:
            PoisonInput: SOP_CLASS_NOT_RELEASED, PIXEL_REVIEW_REQUIRED, MISSING_UID, NOT_DEIDENTIFIABLE or
                RESIDUAL_IDENTIFIER; the message names no value of the object.
        """
        with quiet():
            try:
                return self._deidentify(data, patient_domain)
            except (PoisonInput, MemoryError):
                raise
            except Exception:  # noqa: BLE001  # fail closed: hostile values make pydicom raise anything, values in the text
                raise PoisonInput(Reason.NOT_DEIDENTIFIABLE, "the object cannot be processed completely") from None

    def _deidentify(self, data: bytes, patient_domain: str) -> Deidentified:
        ds = read(data)
        syntax = transfer_syntax(ds)
        uids = _required_uids(ds)
        identifiers = screen.identifiers_of(ds)
        index = screen.Index(identifiers)
        pixels.review(ds, self._profile, syntax, index)
        subject = self._subject(ds, patient_domain, uids["StudyInstanceUID"])
        cleaner = Cleaner(self._profile, self._rules, self._keys, subject, index)
        out = cleaner.clean(ds)
        actions = cleaner.actions + self._meta_actions(ds, cleaner)
        self._mark(out, subject)
        output = _write(out, uids["SOPClassUID"], syntax)
        self._prove(output, identifiers, subject, cleaner.meanings)
        return Deidentified(
            data=output,
            study_instance_uid=cleaner.uid(uids["StudyInstanceUID"]),
            series_instance_uid=cleaner.uid(uids["SeriesInstanceUID"]),
            sop_instance_uid=cleaner.uid(uids["SOPInstanceUID"]),
            patient_id=subject.pseudonym,
            uid_map=dict(cleaner.uid_map),
            original_patient_id=subject.original_id,
            patient_domain=subject.domain,
            actions={str(action): number for action, number in sorted(actions.items())},
        )

    def _subject(self, ds: FileDataset, patient_domain: str, study_uid: str) -> Subject:
        """Whose object it is. An unreadable Patient ID is no missing one: it refuses the object."""
        found = {}
        for keyword in ("IssuerOfPatientID", "PatientID"):
            decoded = element(ds, Tag(keyword)) if keyword in ds else None
            if keyword in ds and (decoded is None or isinstance(decoded.value, bytes) or decoded.VR == "SQ"):
                raise PoisonInput(
                    Reason.NOT_DEIDENTIFIABLE, "the patient's identity cannot be read", dicom_path=f"{Tag(keyword):08X}"
                )
            found[keyword] = "\\".join(values(decoded))
        domain = found["IssuerOfPatientID"] or patient_domain
        original = found["PatientID"] or f"NO_PID:{study_uid}"
        return Subject(
            domain, original, self._keys.patient_id(domain, original), self._keys.date_shift(domain, original)
        )

    def _meta_actions(self, ds: FileDataset, cleaner: Cleaner) -> Counter[Action]:
        """What became of the old file meta: it is written anew, so most of it is gone."""
        actions: Counter[Action] = Counter()
        for path, _, tag, _, decoded in elements(file_meta(ds)):
            action = _META_ACTIONS.get(tag, Action.REMOVE) if "." not in path else Action.REMOVE
            actions[action] += 1
            if action is Action.UID:
                for text in values(decoded):
                    cleaner.uid(text)
        return actions

    def _mark(self, out: Dataset, subject: Subject) -> None:
        """Say in the object whose it is now and what was done to it (PS3.15 E.1.1)."""
        out.PatientID = out.PatientName = subject.pseudonym
        claimed = ["113100", "113107"] if self._profile.shifts_dates else ["113100"]
        out.PatientIdentityRemoved = "YES"
        out.DeidentificationMethod = f"{OWN_TEXTS[0]}; {self._profile.profile_id} {self._profile.version}"
        out.DeidentificationMethodCodeSequence = Sequence(_method(code) for code in claimed)
        out.LongitudinalTemporalInformationModified = "MODIFIED" if self._profile.shifts_dates else "REMOVED"

    def _prove(
        self, output: bytes, identifiers: frozenset[screen.Identifier], subject: Subject, meanings: set[str]
    ) -> None:
        """Refuse the object when its written form holds an identifier of its source or what no rule lets through."""
        terms = {term for values_of in self._profile.essential.values() for term in values_of}
        own = (*OWN_TEXTS, *METHOD_CODES.values(), self._profile.profile_id, self._profile.version)
        words = screen.fold(" ".join((*own, *terms, *meanings, *self._profile.coding_schemes))).split()
        texts = self._profile.keep_text | _WRITTEN_TEXTS
        wanted = (
            found for found in identifiers if found.text != IMPLEMENTATION_CLASS_UID
        )  # re-released objects have it
        found = screen.residual(output, wanted, frozenset(words))
        found += screen.violations(output, patient_id=subject.pseudonym, texts=texts)
        if found:
            raise PoisonInput(Reason.RESIDUAL_IDENTIFIER, f"{len(found)} finding(s): {', '.join(found[:8])}")


def _required_uids(ds: FileDataset) -> dict[str, str]:
    found = {}
    for keyword in _REQUIRED_UIDS:
        texts = values(element(ds, Tag(keyword))) if keyword in ds else []
        if len(texts) != 1 or not texts[0]:
            raise PoisonInput(
                Reason.MISSING_UID, f"{keyword} is missing or not one UID", dicom_path=f"{Tag(keyword):08X}"
            )
        if keyword != "SOPClassUID" and is_standard_uid(texts[0]):
            raise PoisonInput(
                Reason.NOT_DEIDENTIFIABLE,
                f"{keyword} lies below the root of the standard, whose UIDs are not replaced",
                dicom_path=f"{Tag(keyword):08X}",
            )
        found[keyword] = texts[0]
    return found


def _write(out: Dataset, sop_class: str, syntax: str) -> bytes:
    """A Part 10 file (PS3.10 7.1): zero preamble, new file meta, the source's transfer syntax."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = out.SOPInstanceUID
    meta.TransferSyntaxUID = UID(syntax)
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    out.file_meta = meta
    out.preamble = bytes(128)
    buffer = BytesIO()
    dcmwrite(
        buffer,
        out,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
        enforce_file_format=True,
    )
    return buffer.getvalue()


def _method(code: str) -> Dataset:
    item = Dataset()
    item.CodeValue = code
    item.CodingSchemeDesignator = "DCM"
    item.CodeMeaning = METHOD_CODES[code]
    return item
