"""Which released image a label is about. Original names and UIDs go in, research keys come out.

Joins on the identified side, where original names are known.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

from imaging_pipeline.conversion.names import NameIndex
from imaging_pipeline.deid.pseudonyms import ProjectKeys
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.objects.model import key_of


@dataclass(frozen=True, slots=True)
class Subject:
    """An image of the research side.

    Attributes:
        key: its ``instance_key`` there.
        patient: domain and Patient ID on the identified side, by which its dates are shifted.
    """

    key: str
    patient: tuple[str, str]


class Subjects:
    """The current images by what labels may call them: SOP Instance UID, file name, or the end of a path."""

    def __init__(self, identified: Lake, keys: ProjectKeys) -> None:
        """Read the names of all current images.

        The name of a vanished file still counts (it may have been moved), unless another object has its place now.
        """
        self._by_uid: dict[str, Subject] = {}
        self._by_name: NameIndex[Subject] = NameIndex()
        for uri, uid, domain, patient in identified.rows(_NAMES):
            subject = self._by_uid.get(str(uid))
            if subject is None:
                subject = self._by_uid[str(uid)] = Subject(key_of(keys.uid(str(uid))), (str(domain), str(patient)))
            path = str(uri).partition("://")[2].replace("!", "/")
            self._by_name.add(unquote(path, errors="surrogateescape"), subject)

    def find(self, image: str) -> set[Subject]:
        """The images that something may be the UID or the name of."""
        subject = self._by_uid.get(image)
        return {subject} if subject else self._by_name.find(image)


_NAMES = """
SELECT storage_uri, sop_instance_uid, patient_domain, patient_id
FROM silver.dicom_instance
JOIN silver.dicom_file_location USING (instance_key)
JOIN silver.dicom_series ON dicom_series.series_key = dicom_instance.series_key
JOIN silver.dicom_study ON dicom_study.study_key = dicom_series.study_key
JOIN silver.dicom_patient ON dicom_patient.patient_key = dicom_study.patient_key
WHERE version_state = 'CURRENT' AND (role <> 'DELETED' OR storage_uri NOT IN (
    SELECT storage_uri FROM silver.dicom_file_location WHERE role <> 'DELETED'))
"""
