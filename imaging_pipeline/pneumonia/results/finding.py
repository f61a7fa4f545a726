"""What a model said of one image, and what its report and its picture have in common.

Owns their UIDs, their dates and who made them. Contains no content of either and no pixels.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from pydicom.dataset import Dataset

import imaging_pipeline
from imaging_pipeline.errors import PoisonInput, Reason
from imaging_pipeline.objects.model import key_of
from imaging_pipeline.pneumonia.prediction import Flag

CODE_VERSION = "1"
"""Raise it when the same image and prediction would give other bytes: UIDs change with it."""

MAKER = "imaging-pipeline"

NOT_FOR_CLINICAL_USE = "For research. Not for clinical use: no decision about a patient may rest on it."

UNKNOWN_DATE, UNKNOWN_TIME = "19000101", "000000"
"""Of results about an image that states no date: a report must have one (PS3.3 C.17.2)."""

_MOMENTS = (("ContentDate", "ContentTime"), ("AcquisitionDate", "AcquisitionTime"), ("StudyDate", "StudyTime"))


class Kind(enum.StrEnum):
    """REPORT: a structured report; CAPTURE: the film with the heat map. Values as DICOM abbreviates them."""

    REPORT = "SR"
    CAPTURE = "SC"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one model version says of one image.

    Attributes:
        model_name: name in the registry.
        model_version: version there.
        flag: what it calls the image.
        threshold: scores at or above it are called positive.
        score: 0 to 1; None where there is no answer.
        uncertainty: spread of the score in the same units, or None where it is not known.
        reason: why there is no answer, in words.
        weights_sha256: digest of the model's weights and settings.
        frame: of the image, from 1, that was looked at.
    """

    model_name: str
    model_version: str
    flag: Flag
    threshold: float
    score: float | None = None
    uncertainty: float | None = None
    reason: str = ""
    weights_sha256: str = ""
    frame: int = 1

    def __post_init__(self) -> None:
        if (self.score is None) != (self.flag is Flag.NO_ANSWER):
            raise ValueError("expected a score, or the flag NO_ANSWER, and not both")

    @property
    def model(self) -> str:
        """Name and version of the model."""
        return f"{self.model_name} {self.model_version}"

    @property
    def token(self) -> str:
        """Another one as soon as anything that is said is different."""
        return key_of(CODE_VERSION, repr(self))


def result_uid(kind: str, finding: Finding, source: Dataset, level: str) -> str:
    """A UID of a result (PS3.5 B.2), the same on every machine.

    It follows from the image and the model version: another version gives another object, the same one again the same.

    Args:
        kind: of the result.
        finding: what was said; only its model counts.
        source: the image.
        level: what the UID names: an instance, a series or something inside.
    """
    model = (finding.model_name, finding.model_version)
    return _uid(level, kind, *model, str(source.SOPInstanceUID), str(finding.frame))


def observer_uid(finding: Finding) -> str:
    """The UID of the model version as an observer, whatever the image."""
    return _uid("observer", finding.model_name, finding.model_version, finding.weights_sha256)


def _uid(*parts: str) -> str:
    return f"2.25.{int(key_of(MAKER, CODE_VERSION, *parts), 16)}"


def frames_of(source: Dataset, finding: Finding) -> list[int] | None:
    """The frame to name in a reference to the image; None: it has one only (PS3.3 C.17.3)."""
    return [finding.frame] if int(source.get("NumberOfFrames") or 1) > 1 else None


_TYPE_2: Final = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber",
    "ReferringPhysicianName", "StudyID",
)  # fmt: skip
"""What must be stated of a patient and a study, and may be empty (PS3.3 C.7.1.1, C.7.2.1)."""


def study_of(source: Dataset) -> Dataset:
    """The header of an image as the makers of its results take it: complete, in UTF-8, without pixels."""
    header = Dataset()
    header.update({elem.tag: elem for elem in source if elem.keyword != "PixelData"})
    header.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _TYPE_2:
        if keyword not in header:
            setattr(header, keyword, "")
    return header


def moment_of(source: Dataset) -> tuple[str, str]:
    """Date and time a result is about: those of the image, so that it has no clock of its own.

    On the research side a date of today would tell by how far the patient's dates were moved.
    """
    for date, time in _MOMENTS:
        if source.get(date):
            return str(source.get(date)), str(source.get(time) or UNKNOWN_TIME)
    return UNKNOWN_DATE, UNKNOWN_TIME


def finish(ds: Dataset, source: Dataset, finding: Finding, description: str) -> Dataset:
    """Say who made a result and of when it is, in place of the clock and versions that libraries put there.

    Args:
        ds: the result; changed.
        source: the image it is about.
        finding: what was said.
        description: of its series.
    """
    for keyword in ("InstanceCreationDate", "InstanceCreationTime", "ContributingEquipmentSequence"):
        if keyword in ds:
            delattr(ds, keyword)
    ds.ContentDate, ds.ContentTime = moment_of(source)
    if source.get("TimezoneOffsetFromUTC"):
        ds.TimezoneOffsetFromUTC = source.TimezoneOffsetFromUTC
    ds.Manufacturer = MAKER
    ds.ManufacturerModelName = finding.model
    ds.DeviceSerialNumber = finding.weights_sha256[:16] or finding.model
    ds.SoftwareVersions = [imaging_pipeline.__version__, f"results {CODE_VERSION}"]
    ds.SeriesDescription = description
    return ds


@contextmanager
def refused_when_unfit() -> Iterator[None]:
    """Refuse an image from whose header no object of its study can be made.

    Raises:
        PoisonInput: MALFORMED; what the libraries say of it would quote its values.
    """
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, IndexError) as error:
        kind = type(error).__name__
        raise PoisonInput(
            Reason.MALFORMED, f"no result can be put into its study ({kind}): look at its header"
        ) from None
