"""The structured report of a prediction: PS3.16 TID 1500, a measurement group about the image (TID 1501).

Coded as labels are read from reports: the finding, whether it is present, and how certain the algorithm is of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from imaging_pipeline.pneumonia.prediction import Flag
from imaging_pipeline.pneumonia.results.finding import (
    MAKER,
    NOT_FOR_CLINICAL_USE,
    Finding,
    Kind,
    finish,
    frames_of,
    observer_uid,
    refused_when_unfit,
    result_uid,
    study_of,
)

if TYPE_CHECKING:
    from highdicom import sr

SERIES_NUMBER: Final = 9101
SERIES_DESCRIPTION: Final = "Pneumonia model report, not for clinical use"

PNEUMONIA: Final = Code("233604007", "SCT", "Pneumonia")
PROCEDURE: Final = Code("399208008", "SCT", "Plain chest X-ray")
LUNG: Final = Code("39607008", "SCT", "Lung")
NEURAL_NETWORK: Final = Code("123110", "DCM", "Artificial Intelligence")
PRESENCE: Final = Code("121052", "DCM", "Presence of property")
CERTAINTY: Final = Code("111012", "DCM", "Certainty of Finding")
UNCERTAINTY: Final = Code("371884006", "SCT", "+/-, range of measurement uncertainty")
COMMENT: Final = Code("121106", "DCM", "Comment")
PERCENT: Final = Code("%", "UCUM", "Percent")

SAID: Final = {
    Flag.POSITIVE: Code("52101004", "SCT", "Present"),
    Flag.NEGATIVE: Code("272519000", "SCT", "Absent"),
    Flag.NO_ANSWER: Code("373068000", "SCT", "Undetermined"),
}
"""CID 240 of PS3.16."""


def report_of(source: Dataset, finding: Finding) -> Dataset:
    """The report of what a model said of an image, a new series of its study; nobody has verified it.

    Args:
        source: the image, pixels not needed; its patient and study are copied.
        finding: what was said.

    Returns:
        A Comprehensive SR (PS3.3 A.35.3); the same input gives the same values, UIDs too.

    Raises:
        PoisonInput: MALFORMED: the header of the image lacks what every object of a study has.
    """
    from highdicom import sr  # noqa: PLC0415 - slow to load

    with refused_when_unfit():
        made = sr.ComprehensiveSR(
            evidence=[study_of(source)],
            content=_content(source, finding),
            series_instance_uid=result_uid(Kind.REPORT, finding, source, "series"),
            series_number=SERIES_NUMBER,
            sop_instance_uid=result_uid(Kind.REPORT, finding, source, "instance"),
            instance_number=1,
            manufacturer=MAKER,
            is_complete=True,
            is_final=False,
            is_verified=False,
        )
        return finish(made, source, finding, SERIES_DESCRIPTION)


def _content(source: Dataset, finding: Finding) -> sr.MeasurementReport:
    from highdicom import sr  # noqa: PLC0415

    observer = sr.DeviceObserverIdentifyingAttributes(
        uid=observer_uid(finding),
        name=f"{MAKER} {finding.model_name}"[:64],
        manufacturer_name=MAKER,
        model_name=finding.model,
    )
    context = sr.ObservationContext(
        observer_device_context=sr.ObserverContext(sr.CodedConcept("121007", "DCM", "Device"), observer)
    )
    return sr.MeasurementReport(
        observation_context=context,
        procedure_reported=PROCEDURE,
        imaging_measurements=[_group(source, finding)],
        title=Code("126000", "DCM", "Imaging Measurement Report"),
    )


def _group(source: Dataset, finding: Finding) -> sr.MeasurementsAndQualitativeEvaluations:
    from highdicom import sr  # noqa: PLC0415

    algorithm = sr.AlgorithmIdentification(
        name=finding.model_name,
        version=finding.model_version,
        family=NEURAL_NETWORK,
        parameters=[f"threshold={finding.threshold:.6g}", *_digest(finding)],
    )
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=result_uid(Kind.REPORT, finding, source, "finding"), identifier=f"{finding.model}: pneumonia"
        ),
        finding_type=PNEUMONIA,
        finding_sites=[sr.FindingSite(anatomic_location=LUNG)],
        measurements=_measurements(finding),
        qualitative_evaluations=[sr.QualitativeEvaluation(PRESENCE, SAID[finding.flag])],
        source_images=[
            sr.SourceImageForMeasurementGroup(
                str(source.SOPClassUID), str(source.SOPInstanceUID), frames_of(source, finding)
            )
        ],
    )
    comments = (
        sr.TextContentItem(COMMENT, text, relationship_type=sr.RelationshipTypeValues.CONTAINS)
        for text in _comments(finding)
    )
    group[0].ContentSequence.extend([*algorithm, *comments])
    return group


def _measurements(finding: Finding) -> list[sr.Measurement]:
    """The score in percent, as PS3.16 defines the certainty of a finding; none where there is no answer."""
    from highdicom import sr  # noqa: PLC0415

    if finding.score is None:
        return []
    measurement = sr.Measurement(CERTAINTY, _percent(finding.score), PERCENT)
    if finding.uncertainty is not None:
        spread, kind = _percent(finding.uncertainty), sr.RelationshipTypeValues.HAS_PROPERTIES
        item = sr.NumContentItem(UNCERTAINTY, spread, PERCENT, relationship_type=kind)
        measurement[0].ContentSequence = sr.ContentSequence([item])
    return [measurement]


def _comments(finding: Finding) -> list[str]:
    why = [f"No answer: {finding.reason.replace('_', ' ')}"] if finding.reason else []
    called = f"Called {finding.flag} by {finding.model} at the threshold {finding.threshold:.6g}."
    return [NOT_FOR_CLINICAL_USE, called, *why]


def _digest(finding: Finding) -> list[str]:
    return [f"weights_sha256={finding.weights_sha256}"] if finding.weights_sha256 else []


def _percent(share: float) -> float:
    """To what a Decimal String of 16 characters holds of it."""
    return round(100 * share, 10)
