"""A MONAI Label app on the research service of imaging_pipeline: films in by WADO-RS, segmentations back by STOW-RS.

Runs in an environment of its own (MONAI Label needs pydicom 2); nothing of imaging_pipeline is imported.
"""

from __future__ import annotations

import os
from pathlib import Path

from dicomweb_client.session_utils import create_session
from lib.datastore import FilmDatastore
from lib.lungs import LABELS, LungInfer
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMwebClientX
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask

TOKEN = "MONAI_LABEL_DICOM_TOKEN"  # noqa: S105 - the name of a variable
"""Environment variable with a token of a user who may read and annotate."""


class FilmApp(MONAILabelApp):
    """Lungs on chest films, with pneumonia to be drawn by a person."""

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self.model = Path(app_dir, "model", "lungs.ts")
        if not self.model.is_file():
            raise FileNotFoundError("model/lungs.ts is missing: run export_model.py in imaging_pipeline's environment")
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="Chest films",
            description="Lungs by imaging_pipeline's network; not for clinical use",
            labels=LABELS,
        )

    def init_infers(self) -> dict[str, InferTask]:
        """The one model."""
        return {"lungs": LungInfer(str(self.model))}

    def _init_dicomweb_datastore(self) -> Datastore:
        """The service, asked with a token; without one it would answer 401 to all there is."""
        if not os.environ.get(TOKEN):
            raise RuntimeError(f"set {TOKEN} to a token: imaging-pipeline access token create USER")
        session = create_session()
        session.headers["Authorization"] = f"Bearer {os.environ[TOKEN]}"
        return FilmDatastore(
            DICOMwebClientX(url=self.studies, session=session),
            search_filter=settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER,
            cache_path=settings.MONAI_LABEL_DICOMWEB_CACHE_PATH or None,
        )
