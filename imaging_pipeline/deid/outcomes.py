"""What became of one object: the record that evidence is counted from.

Names no original: objects have keyed tokens, elements tag paths, patients pseudonyms, values are counted.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final

from imaging_pipeline.deid.anonymity import QUASI_IDENTIFIERS
from imaging_pipeline.deid.engine import Deidentified
from imaging_pipeline.deid.known import values_of
from imaging_pipeline.deid.pixels import PixelReport
from imaging_pipeline.deid.pseudonyms import ProjectKeys, is_standard_uid
from imaging_pipeline.deid.screen import TEXT_VRS
from imaging_pipeline.errors import PoisonInput
from imaging_pipeline.objects.model import key_of

_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_WORD: Final = re.compile(r"[a-z0-9][a-z0-9._-]{4,}")
_HAS_DIGIT: Final = re.compile(r"\d")


class Verdict(StrEnum):
    """What became of an object. FAILED: it is no DICOM or cannot be read; it could not even be judged."""

    RELEASED = "RELEASED"
    HELD = "HELD"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one object.

    Attributes:
        token: keyed token of the object.
        verdict: released, held or failed.
        reason: why it is not released; for a released one ``duplicate_content`` when another object had the same bytes.
        message: the same in words.
        dicom_path: the element at fault, if it is one.
        actions: ``TAGPATH ACTION`` to the number of source elements.
        options: CID 7050 codes that the object claims.
        warnings: codes such as FACE_RECONSTRUCTION_POSSIBLE.
        pixels: figures of the search for burned-in text, by name.
        file: path of the released file below the output folder.
        sha256: its digest.
        sop_instance_uid: its UID.
        patient_id: the pseudonym.
        study_instance_uid: the released study.
        quasi: attributes of the released object that may tell a person by their combination, keyword to value.
        numbers: keyed tokens of `numbers_in` of the released header, compared with those of all patients of the run.
    """

    token: str
    verdict: Verdict
    reason: str = ""
    message: str = ""
    dicom_path: str = ""
    actions: Mapping[str, int] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    pixels: Mapping[str, int] = field(default_factory=dict)
    file: str = ""
    sha256: str = ""
    sop_instance_uid: str = ""
    patient_id: str = ""
    study_instance_uid: str = ""
    quasi: Mapping[str, str] = field(default_factory=dict)
    numbers: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The outcome as plain values, without what is empty."""
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Outcome:
        """What `as_json` gave."""
        plain = dict(found) | {"verdict": Verdict(found["verdict"])}
        return cls(**plain | {name: tuple(found.get(name, ())) for name in ("options", "warnings", "numbers")})


def outcome_of(token: str, released: Deidentified) -> Outcome:
    """The outcome of a released object.

    Args:
        token: keyed token of the source object.
        released: what the engine made of it.
    """
    return Outcome(
        token,
        Verdict.RELEASED,
        actions=released.attribute_actions,
        options=released.options,
        warnings=released.warnings,
        pixels=pixel_figures(released.pixel_report),
        file=released_path(released),
        sha256=hashlib.sha256(released.data).hexdigest(),
        sop_instance_uid=released.sop_instance_uid,
        patient_id=released.patient_id,
        study_instance_uid=released.study_instance_uid,
        quasi=quasi_identifiers(released.header.json),
    )


def pixel_figures(report: PixelReport) -> dict[str, int]:
    """The figures of a search for burned-in text, by name; those that are 0 left out, but for the words left."""
    found = {
        "frames": report.frames,
        "frames read by the text detector": report.frames_read,
        "regions blanked": len(report.regions),
        "objects with changed pixels": int(report.is_changed),
        "objects whose face could be reconstructed": int(report.face_risk),
        **{f"objects changed by rule {rule}": 1 for rule in report.rules},
    }
    looked = {"words left when looked at again": report.residual_words} if report.frames else {}
    return looked | {name: number for name, number in found.items() if number}


def refused(token: str, refusal: PoisonInput, verdict: Verdict) -> Outcome:
    """The outcome of an object that is not released."""
    return Outcome(token, verdict, str(refusal.reason), refusal.message, refusal.dicom_path or "")


def released_path(released: Deidentified) -> str:
    """Where a released file goes below the output folder: pseudonym, study, series, object, none of them an original.

    A format-preserving pseudonym keeps the separators of its original; one that is no plain name of a folder is hashed.
    """
    patient = released.patient_id
    folder = patient if _PLAIN_NAME.fullmatch(patient) else key_of(patient)
    return f"{folder}/{released.study_instance_uid}/{released.series_instance_uid}/{released.sop_instance_uid}.dcm"


def quasi_identifiers(header_json: str) -> dict[str, str]:
    """Attributes of a released header by which a person could be told from others, keyword to value."""
    header = json.loads(header_json)
    found = {keyword: header.get(tag, {}).get("Value") for tag, keyword in QUASI_IDENTIFIERS.items()}
    return {keyword: "\\".join(map(str, value)) for keyword, value in found.items() if value}


def numbers_in(header_json: str) -> frozenset[str]:
    """UIDs and numbers in the texts of a header, in lower case: what may be another patient's.

    UIDs that the standard registers are left out; of texts only words with a digit count, since others are words of a
    language, and dates and measurements are in other representations.
    """
    return frozenset(_numbers(values_of(json.loads(header_json))))


def _numbers(values: Iterator[tuple[str, str, str]]) -> Iterator[str]:
    for _, vr, text in values:
        if vr == "UI" and not is_standard_uid(text):
            yield text
        elif vr in TEXT_VRS or vr == "PN":
            folded = text.lower()
            yield from (word for word in (folded, *_WORD.findall(folded)) if len(word) > 4 and _HAS_DIGIT.search(word))


def value_tokens(keys: ProjectKeys, values: Iterable[str]) -> frozenset[str]:
    """Keyed tokens of values, by which equal ones are found without a value being named."""
    return frozenset(keys.token("value", value) for value in values)
