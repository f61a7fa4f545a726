"""The picture of a prediction: a secondary capture (PS3.3 A.8.1) of the film with the heat map, in its study."""

from __future__ import annotations

from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import JPEGLSLossless

from imaging_pipeline.pneumonia.results.finding import (
    MAKER,
    Finding,
    Kind,
    finish,
    frames_of,
    refused_when_unfit,
    result_uid,
    study_of,
)
from imaging_pipeline.pneumonia.results.overlay import Picture

SERIES_NUMBER: Final = 9102
SERIES_DESCRIPTION: Final = "Pneumonia model heat map, not for clinical use"

DERIVATION: Final = (
    "Film with a Grad-CAM map of what speaks for pneumonia; score, model version and a colour bar stand beside it"
)

_AS_THEY_ARE: Final = (
    "BurnedInAnnotation",  # PS3.3 C.7.6.1: whether pixels identify the patient; the text that is added does not
    "RecognizableVisualFeatures",
    "LossyImageCompression",  # once lossy, always lossy (PS3.3 C.7.6.1.1.5)
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
_SOURCE_OF_PROCESSING: Final = ("121322", "DCM", "Source image for image processing operation")


def capture_of(source: Dataset, picture: Picture, finding: Finding) -> Dataset:
    """The secondary capture of a picture about an image, a new series of its study.

    Args:
        source: the image, pixels not needed; its patient and study are copied.
        picture: uint8 (rows, columns, 3), RGB, as `overlay` draws it.
        finding: what was said.

    Returns:
        A Secondary Capture Image, JPEG-LS lossless; the same input gives the same values, UIDs too.

    Raises:
        PoisonInput: MALFORMED: the header of the image lacks what every object of a study has.
    """
    from highdicom.sc import SCImage  # noqa: PLC0415 - slow to load

    with refused_when_unfit():
        study = study_of(source)
        made = SCImage.from_ref_dataset(
            study,
            pixel_array=picture,
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            series_instance_uid=result_uid(Kind.CAPTURE, finding, source, "series"),
            series_number=SERIES_NUMBER,
            sop_instance_uid=result_uid(Kind.CAPTURE, finding, source, "instance"),
            instance_number=1,
            manufacturer=MAKER,
            patient_orientation=("L", "F"),
            transfer_syntax_uid=JPEGLSLossless,
        )
        made.copy_patient_and_study_information(study)
        made.PatientOrientation = source.get("PatientOrientation") or []  # highdicom takes no empty one
        made.BodyPartExamined = "CHEST"  # of other images the model says nothing
        made.ConversionType = "WSD"
        made.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
        made.DerivationDescription = DERIVATION
        made.SourceImageSequence = [_reference(source, finding)]
        for keyword in ("DateOfSecondaryCapture", "TimeOfSecondaryCapture"):
            delattr(made, keyword)
        for keyword in _AS_THEY_ARE:
            if source.get(keyword):
                setattr(made, keyword, source.get(keyword))
        return finish(made, source, finding, SERIES_DESCRIPTION)


def _reference(source: Dataset, finding: Finding) -> Dataset:
    """The image and what it was used for (PS3.3 C.7.6.1.1.4)."""
    item, purpose = Dataset(), Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    if frames := frames_of(source, finding):
        item.ReferencedFrameNumber = frames
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = _SOURCE_OF_PROCESSING
    item.PurposeOfReferenceCodeSequence = [purpose]
    return item
