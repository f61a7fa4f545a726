"""Films of the research service for MONAI Label, and segmentations back to it.

MONAI Label writes segmentations with dcmqi, which needs images that have a place in the patient. A projection film has
none, so this one writes them with highdicom. One film to a series: of several the first is taken.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel
import numpy as np
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import DefaultLabelTag
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.pixel_data_handlers.util import apply_modality_lut, apply_voi_lut
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from lib.lungs import LABELS

EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"

ANATOMY, FINDING = Code("123037004", "SCT", "Anatomical structure"), Code("49755003", "SCT", "Morphologic abnormality")

KINDS = {
    "right lung": (ANATOMY, Code("3341006", "SCT", "Right lung")),
    "left lung": (ANATOMY, Code("44029006", "SCT", "Left lung")),
    "pneumonia": (FINDING, Code("233604007", "SCT", "Pneumonia")),
}


class FilmDatastore(DICOMWebDatastore):
    """Series with one film each."""

    def get_image_uri(self, image_id: str) -> str:
        """The path of a film as NIfTI: (columns, rows, 1), bright is dense; its axes are those of DICOM, negated."""
        path = Path(self._datastore.image_path(), f"{image_id}.nii.gz")
        if not path.exists():
            film = self._film(image_id)
            pixels = apply_voi_lut(apply_modality_lut(film.pixel_array, film), film).astype(np.float32)
            if film.PhotometricInterpretation == "MONOCHROME1":
                pixels = pixels.max() - pixels
            rows, columns = film.get("PixelSpacing") or film.get("ImagerPixelSpacing") or (1, 1)
            affine = np.diag([-float(columns), -float(rows), 1, 1])
            LocalDatastore.add_image(self, image_id, self._written(pixels, affine), self._dicom_info(image_id))
        return str(path)

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Keep a mask; a final one goes to the service as a segmentation.

        One that comes with the name of a model is the model's own; any other has been in the hands of a person.
        """
        if label_tag == DefaultLabelTag.FINAL:
            mask = np.asarray(nibabel.load(label_filename).dataobj).squeeze().T.astype(np.uint8)
            seg = segmentation_of(self._film(image_id), mask, is_automatic="model" in label_info)
            self._client.store_instances([seg])
            label_info = label_info | {"SeriesInstanceUID": str(seg.SeriesInstanceUID)}
        return LocalDatastore.save_label(self, image_id, label_filename, label_tag, label_info)

    def _film(self, series: str) -> Dataset:
        """The film of a series, as it is kept in the cache or fetched in a syntax that every program can read."""
        path = Path(self._datastore.image_path(), series, "film.dcm")
        if not path.exists():
            (found, *_) = self._client.search_for_series(search_filters={"SeriesInstanceUID": series})
            study = found["0020000D"]["Value"][0]
            media = (("application/dicom", EXPLICIT_LITTLE_ENDIAN),)
            films = self._client.retrieve_series(study, series, media_types=media)
            first = min(films, key=lambda film: int(film.get("InstanceNumber") or 0))
            path.parent.mkdir(parents=True, exist_ok=True)
            first.save_as(path, write_like_original=False)
        return dcmread(path)

    def _written(self, pixels: np.ndarray, affine: np.ndarray) -> str:
        path = Path(self._datastore.image_path(), "writing.nii.gz")
        nibabel.save(nibabel.Nifti1Image(pixels.T[..., np.newaxis], affine), path)
        return str(path)


def segmentation_of(film: Dataset, mask: np.ndarray, *, is_automatic: bool) -> Dataset:
    """A mask (rows, columns) with the values of LABELS, as a segmentation in the study of the film."""
    if mask.shape != (film.Rows, film.Columns):
        raise ValueError("the mask has not the size of the film")
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
                    "AccessionNumber", "ReferringPhysicianName"):  # fmt: skip
        if keyword not in film:  # highdicom reads them
            setattr(film, keyword, None)
    drawn = [name for name, value in LABELS.items() if (mask == value).any()]
    if not drawn:
        raise ValueError("the mask is empty")
    algorithm = hd.AlgorithmIdentificationSequence("imaging_pipeline lungs", codes.DCM.ArtificialIntelligence, "1")
    made = "AUTOMATIC" if is_automatic else "SEMIAUTOMATIC"
    seg = hd.seg.Segmentation(
        source_images=[film],
        pixel_array=np.stack([mask == LABELS[name] for name in drawn], axis=-1)[np.newaxis].astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=[
            hd.seg.SegmentDescription(number, name, *KINDS[name], made, algorithm)
            for number, name in enumerate(drawn, start=1)
        ],
        series_instance_uid=hd.UID(),
        series_number=9200,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="MONAI Label",
        manufacturer_model_name="imaging_pipeline example app",
        software_versions="1",
        device_serial_number="1",
        series_description="Drawn with MONAI Label",
    )
    written = BytesIO()
    dcmwrite(written, seg, write_like_original=False)
    return dcmread(BytesIO(written.getvalue()))
