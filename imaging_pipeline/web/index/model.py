"""An instance as a service sees it: who it is, where its bytes are, and what its image is like."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from imaging_pipeline.objects.model import ObjectVersion


@dataclass(frozen=True, slots=True)
class Instance:
    """The current version of a SOP instance that a zone serves.

    Attributes:
        instance_key: its key in the lake.
        object_key: key of the object it is made from.
        patient_id: Patient ID (0010,0020), or empty.
        study_instance_uid: Study Instance UID.
        series_instance_uid: Series Instance UID.
        sop_instance_uid: SOP Instance UID.
        sop_class_uid: SOP Class UID, or empty.
        transfer_syntax_uid: transfer syntax of the object, or empty where it does not say.
        uri: where the object is.
        version: the version of the object that the lake has read; a file's is of size and time.
        size: bytes of the object.
        source: configured source of the object; the project of a released one.
        sha256: digest of the object's bytes.
        instance_number: Instance Number (0020,0013), or None.
        number_of_frames: frames of an image, 1 where it does not say; None: no image.
        rows: rows of the image, or None.
        columns: columns of the image, or None.
        bits_allocated: bits of storage for a sample, or None.
        samples_per_pixel: samples of a pixel, or None.
        photometric: Photometric Interpretation (0028,0004), or None.
        pixel_data_offset: byte offset of the pixel data's value in the object, or None.
        arrival_batch: the batch it came with.
    """

    instance_key: str
    object_key: str
    patient_id: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    uri: str
    version: str
    size: int
    source: str
    sha256: str
    instance_number: int | None
    number_of_frames: int | None
    rows: int | None
    columns: int | None
    bits_allocated: int | None
    samples_per_pixel: int | None
    photometric: str | None
    pixel_data_offset: int | None
    arrival_batch: str

    @property
    def target(self) -> ObjectVersion:
        """The object, to be read."""
        return ObjectVersion(self.uri, self.version, self.size, _UNKNOWN_TIME, self.source)


_UNKNOWN_TIME = datetime.fromtimestamp(0, UTC).replace(tzinfo=None)
"""Reading compares versions and sizes; nothing that serves looks at this time."""
