"""From the bytes of an identified object to the bytes of a released one, or to a refusal.

Owns the order of things: read, judge, clean, mark, write, prove. Contains no storage and no keys of its own. Whatever
goes wrong on the way refuses the object; nothing half done is ever returned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence

from imaging_pipeline.deid import documents, screen, waveforms
from imaging_pipeline.deid.cleaner import Cleaner, Subject
from imaging_pipeline.deid.options import METHOD_CODES, OPTION_CODES, PIXEL_DATA, UIDS
from imaging_pipeline.deid.pixels import Decisions, PixelReport, clean_pixels
from imaging_pipeline.deid.profile import Profile
from imaging_pipeline.deid.proof import OWN_TEXTS, Proof
from imaging_pipeline.deid.pseudonyms import ProjectKeys, is_standard_uid
from imaging_pipeline.deid.reading import (
    attribute,
    elements,
    file_meta,
    is_ascii,
    quiet,
    read,
    tag_of,
    texts_of,
    transfer_syntax,
    values,
)
from imaging_pipeline.deid.rules import Action, Rules
from imaging_pipeline.deid.writing import IMPLEMENTATION_CLASS_UID, write
from imaging_pipeline.dicom.header import Header
from imaging_pipeline.errors import PoisonInput, Reason

__all__ = ["IMPLEMENTATION_CLASS_UID", "METHOD_CODES", "OWN_TEXTS", "Deidentified", "Deidentifier"]

FACE_WARNING: Final = "FACE_RECONSTRUCTION_POSSIBLE"
"""The object is of a head scan whose slices show a face."""

_REQUIRED_UIDS: Final = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_META_ACTIONS: Final = {
    0x00020001: Action.KEEP, 0x00020002: Action.KEEP, 0x00020003: Action.UID, 0x00020010: Action.KEEP,
    0x00020012: Action.DUMMY, 0x00020013: Action.DUMMY,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Deidentified:
    """A released object and, for the key holder only, what it came from.

    Attributes:
        data: complete Part 10 file in the source's transfer syntax, its pixel bytes untouched; the same source, key and
            profile give the same bytes.
        header: what the header of ``data`` says.
        patient_id: the pseudonym.
        uid_map: original to new, of every UID that was replaced.
        accession_map: the same of accession numbers.
        original_patient_id: Patient ID of the source, or ``NO_PID:`` and the study's UID.
        patient_domain: Issuer of Patient ID of the source, or the domain the caller gave.
        actions: action code to number of source elements; sums to all elements of the source, file meta included.
        attribute_actions: the same by attribute: tags of the sequences it is in and its own, a blank, the action code
            (``00081140.00081155 U``); items are not told apart.
        options: CID 7050 codes the object claims.
        warnings: codes of what a person should know although the object is released (`FACE_WARNING`).
        pixel_report: what was done to the pixels.
    """

    data: bytes
    header: Header
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    patient_id: str
    uid_map: Mapping[str, str]
    accession_map: Mapping[str, str]
    original_patient_id: str
    patient_domain: str
    actions: Mapping[str, int]
    attribute_actions: Mapping[str, int]
    options: tuple[str, ...]
    warnings: tuple[str, ...]
    pixel_report: PixelReport


class Deidentifier:
    """De-identifies objects under one profile with the keys of one project."""

    __slots__ = ("_decisions", "_keys", "_profile", "_proof", "_rules")

    def __init__(self, profile: Profile, keys: ProjectKeys, decisions: Decisions | None = None) -> None:
        """Take the profile, the project's keys, and what people have decided about pixels.

        Args:
            profile: what may leave.
            keys: the keys of the research project.
            decisions: decisions of the review; None for none.
        """
        self._profile = profile
        self._decisions = decisions or Decisions()
        self._keys = keys
        self._rules: dict[tuple[str, str], Rules] = {}
        self._proof = Proof(profile)

    def deidentify(self, data: bytes, *, patient_domain: str, known: Iterable[screen.Identifier] = ()) -> Deidentified:
        """De-identify one object.

        Args:
            data: the whole object, with or without preamble and file meta.
            patient_domain: who gave the Patient ID its meaning (the source's name), unless the object says it.
            known: identifiers of the same patient from other objects; the object's own are found here.

        Raises:
            PoisonInput: SOP_CLASS_NOT_RELEASED, PIXEL_REVIEW_REQUIRED, MISSING_UID, NOT_DEIDENTIFIABLE or
                RESIDUAL_IDENTIFIER; the message names no value of the object.
        """
        with quiet():
            try:
                return self._deidentify(data, patient_domain, frozenset(known))
            except (PoisonInput, MemoryError):
                raise
            except Exception:  # noqa: BLE001  # fail closed: hostile values make pydicom raise anything, values in the text
                raise PoisonInput(Reason.NOT_DEIDENTIFIABLE, "the object cannot be processed completely") from None

    def _deidentify(self, data: bytes, patient_domain: str, known: frozenset[screen.Identifier]) -> Deidentified:
        ds = read(data)
        syntax = transfer_syntax(ds)
        uids = _required_uids(ds)
        rules = self._rules_for(ds, uids["SOPClassUID"])
        identifiers = self._identifiers(ds, rules) | known
        index = screen.index_of(frozenset(found for found in identifiers if found.kind is not screen.Kind.UID))
        documents.check(ds, self._profile)
        waveforms.check(ds)
        pixels = clean_pixels(
            ds, self._profile, syntax, index, self._decisions, digest=hashlib.sha256(data).hexdigest()
        )
        subject = self._subject(ds, patient_domain, uids["StudyInstanceUID"])
        cleaner = Cleaner(self._profile, rules, self._keys, subject, index)
        out = cleaner.clean(ds)
        self._meta_actions(ds, cleaner)
        claimed = self._claimed(pixels)
        self._mark(out, ds, subject, claimed)
        if pixels.frames:
            out.BurnedInAnnotation = "NO"  # every frame was looked at; what it held is blanked
        output = write(out, uids["SOPClassUID"], syntax)
        header = self._proof.check(output, identifiers, subject.pseudonym, cleaner.meanings, rules)
        return Deidentified(
            data=output,
            header=header,
            study_instance_uid=cleaner.uid(uids["StudyInstanceUID"]),
            series_instance_uid=cleaner.uid(uids["SeriesInstanceUID"]),
            sop_instance_uid=cleaner.uid(uids["SOPInstanceUID"]),
            patient_id=subject.pseudonym,
            uid_map=dict(cleaner.uid_map),
            accession_map=dict(cleaner.accession_map),
            original_patient_id=subject.original_id,
            patient_domain=subject.domain,
            actions={str(action): number for action, number in sorted(cleaner.actions.items())},
            attribute_actions=dict(sorted(cleaner.attribute_actions.items())),
            options=claimed,
            warnings=(FACE_WARNING,) if pixels.face_risk else (),
            pixel_report=pixels,
        )

    def _claimed(self, pixels: PixelReport) -> tuple[str, ...]:
        """CID 7050 codes; that of clean pixel data only where frames were read and cleaned."""
        is_cleaned = self._profile.pixels.blanks and pixels.frames > 0
        return tuple(sorted((*self._profile.codes, *([OPTION_CODES[PIXEL_DATA]] if is_cleaned else []))))

    def _rules_for(self, ds: FileDataset, sop_class: str) -> Rules:
        """The rules for objects of this class and manufacturer, remembered."""
        by_maker = any(found.manufacturer for found in self._profile.overrides)
        key = (sop_class, "\\".join(texts_of(ds, "Manufacturer")) if by_maker else "")
        if key not in self._rules:
            self._rules[key] = Rules(self._profile, *key)
        return self._rules[key]

    def _identifiers(self, ds: FileDataset, rules: Rules) -> frozenset[screen.Identifier]:
        """What must not be in the output: all that identifies, but for what an option or the site keeps."""
        found = screen.identifiers_of(ds, rules.spares)
        if UIDS in self._profile.options:
            found = frozenset(identifier for identifier in found if identifier.kind is not screen.Kind.UID)
        return found

    def _subject(self, ds: FileDataset, patient_domain: str, study_uid: str) -> Subject:
        """Whose object it is. An unreadable Patient ID is no missing one: it refuses the object."""
        found = {}
        for keyword in ("IssuerOfPatientID", "PatientID"):
            tag, decoded = tag_of(keyword), attribute(ds, keyword)
            if tag in ds and (decoded is None or isinstance(decoded.value, bytes) or decoded.VR == "SQ"):
                raise PoisonInput(
                    Reason.NOT_DEIDENTIFIABLE, "the patient's identity cannot be read", dicom_path=f"{tag:08X}"
                )
            found[keyword] = "\\".join(values(decoded))
        domain = found["IssuerOfPatientID"] or patient_domain
        original = found["PatientID"] or f"NO_PID:{study_uid}"
        pseudonym = self._keys.patient_id(domain, original, reversible=self._profile.identifiers == "ff1")
        shift = self._keys.date_shift(domain, original) if self._profile.shifts_dates else None
        return Subject(domain, original, pseudonym, shift)

    def _meta_actions(self, ds: FileDataset, cleaner: Cleaner) -> None:
        """Count what became of the old file meta: it is written anew, so most of it is gone."""
        for path, _, tag, _, decoded in elements(file_meta(ds)):
            action = _META_ACTIONS.get(tag, Action.REMOVE) if "." not in path else Action.REMOVE
            cleaner.count(path, action)
            if action is Action.UID:
                for text in values(decoded):
                    cleaner.uid(text)

    def _mark(self, out: Dataset, source: Dataset, subject: Subject, claimed: tuple[str, ...]) -> None:
        """Say in the object whose it is now and what was done to it (PS3.15 E.1.1)."""
        documents.describe(out, source)
        moved = "MODIFIED" if self._profile.shifts_dates else "REMOVED"
        for keyword, text in (
            ("PatientName", subject.pseudonym),
            ("PatientID", subject.pseudonym),
            ("PatientIdentityRemoved", "YES"),
            ("DeidentificationMethod", f"{OWN_TEXTS[0]}; {self._profile.profile_id} {self._profile.version}"),
            ("LongitudinalTemporalInformationModified", "UNMODIFIED" if self._profile.keeps_dates else moved),
        ):
            _put(out, keyword, text)
        codes = DataElement(tag_of("DeidentificationMethodCodeSequence"), "SQ", Sequence(map(_method, claimed)))
        out[codes.tag] = codes
        if not is_ascii(out):
            _put(out, "SpecificCharacterSet", "ISO_IR 192")


def _required_uids(ds: FileDataset) -> dict[str, str]:
    found = {}
    for keyword in _REQUIRED_UIDS:
        texts, tag = texts_of(ds, keyword), tag_of(keyword)
        if len(texts) != 1 or not texts[0]:
            raise PoisonInput(Reason.MISSING_UID, f"{keyword} is missing or not one UID", dicom_path=f"{tag:08X}")
        if keyword != "SOPClassUID" and is_standard_uid(texts[0]):
            raise PoisonInput(
                Reason.NOT_DEIDENTIFIABLE,
                f"{keyword} lies below the root of the standard, whose UIDs are not replaced",
                dicom_path=f"{tag:08X}",
            )
        found[keyword] = texts[0]
    return found


def _method(code: str) -> Dataset:
    item = Dataset()
    _put(item, "CodeValue", code)
    _put(item, "CodingSchemeDesignator", "DCM")
    _put(item, "CodeMeaning", METHOD_CODES[code])
    return item


def _put(ds: Dataset, keyword: str, text: str) -> None:
    """Set an attribute of text; pydicom's own way takes five times as long."""
    tag = tag_of(keyword)
    vr = dictionary_VR(tag)
    ds[tag] = DataElement(tag, vr, text, already_converted=vr != "PN")
