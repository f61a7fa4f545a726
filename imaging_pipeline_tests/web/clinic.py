"""A clinic of a few patients: its objects, its lakes, and the service of either zone with somebody who may use it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from pydicom.dataset import Dataset

from imaging_pipeline.catalog.bronze import load_bronze
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.deid.clearance import CHECKS, Clearance
from imaging_pipeline.deid.release import Releaser, release_batch
from imaging_pipeline.metadata.silver import load_silver
from imaging_pipeline.settings import Settings
from imaging_pipeline.web.access.gate import Access
from imaging_pipeline.web.access.roles import Role
from imaging_pipeline.web.app import create_app
from imaging_pipeline.web.index import Index
from imaging_pipeline.web.zone import ZoneName
from imaging_pipeline_tests.conftest import environment, folder
from imaging_pipeline_tests.deid.corpus import chest_film, encode

CT, MR, DX = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.1.1"
BATCH = "2026-01-31.00001"
ROOT = "/dicom-web"


def request_item(procedure: str) -> Dataset:
    """An item of the Request Attributes Sequence."""
    item = Dataset()
    item.RequestedProcedureID, item.ScheduledProcedureStepID = procedure, "S1"
    return item


def image(study: int, series: int, number: int, **attributes: object) -> bytes:
    """An object; its UIDs follow from its numbers."""
    uids = {
        "StudyInstanceUID": f"2.25.{study}",
        "SeriesInstanceUID": f"2.25.{study}.{series}",
        "SOPInstanceUID": f"2.25.{study}.{series}.{number}",
        "SeriesNumber": series,
        "InstanceNumber": number,
    }
    return encode(chest_film(**uids, **attributes))


def objects() -> dict[str, bytes]:
    """The clinic's objects by file name."""
    mueller: dict[str, object] = {
        "PatientName": "Müller^Jörg", "PatientID": "P1", "PatientSex": "M", "StudyDate": "20210105",
        "StudyTime": "101530", "StudyID": "S1", "AccessionNumber": "A1", "SpecificCharacterSet": "ISO_IR 192",
        "StudyDescription": "CT thorax [native]",
    }  # fmt: skip
    ct = mueller | {"SOPClassUID": CT, "Modality": "CT", "SeriesDescription": "lung 1 mm"}
    meyer: dict[str, object] = {
        "PatientName": "MEYER^Anna", "PatientID": "P3", "PatientSex": "F", "StudyDate": "20220310",
        "StudyTime": "080000.25", "StudyID": "S3", "AccessionNumber": "A3", "StudyDescription": "",
        "RequestAttributesSequence": [request_item("RP7"), request_item("RP8")],
    }  # fmt: skip
    found = {f"ct{number}.dcm": image(1, 1, number, **ct, BitsStored=number + 10) for number in (1, 2, 3)}
    found["mr.dcm"] = image(
        1, 2, 1, **mueller, SOPClassUID=MR, Modality="MR", PerformedProcedureStepStartDate="20210105"
    )
    found["dx1.dcm"] = image(3, 1, 1, **meyer, Modality="DX")
    found["dx2.dcm"] = image(3, 1, 10, **meyer, Modality="DX", NumberOfFrames=1)
    found["nobody.dcm"] = image(
        4, 1, 1, PatientName="", PatientID=None, StudyDate="", StudyTime="", Modality="DX", AccessionNumber=""
    )
    return found


class Clinic:
    """Lakes of a home, and how objects come and go.

    Args:
        home: a new folder.
    """

    def __init__(self, home: Path) -> None:
        self.landing = home / "landing"
        self.landing.mkdir(parents=True)
        self.workspace = Workspace(Settings.from_environment(environment(home, WORKERS="1")))

    def take_in(self, batch: str = BATCH, **files: bytes) -> None:
        """One batch of files, their names without their ending."""
        place = self.landing / batch
        place.mkdir(exist_ok=True)
        for name, data in files.items():
            (place / f"{name}.dcm").write_bytes(data)
        with self.workspace.identified() as lake:
            manifest = list(folder(place, "north").list(datetime.now(UTC)))
            load_bronze(lake, batch, manifest, self.workspace.reader(), run_id="run", workers=1)
            load_silver(lake, batch)

    def vanish(self, name: str, batch: str = BATCH) -> None:
        """A file is found to have vanished."""
        with self.workspace.identified() as lake:
            with lake.transaction():
                lake.connection.execute(
                    "UPDATE bronze.object_catalog SET deleted_at = now()::TIMESTAMP WHERE storage_uri LIKE ?",
                    [f"%/{name}.dcm"],
                )
            load_silver(lake, batch)

    def release(self, batch: str = BATCH, *, is_checked: bool = True) -> None:
        """De-identify a batch; its checks have passed, or not yet."""
        work = self.workspace
        releaser = Releaser(work.profile(), work.keys(), work.reader(), work.settings.deid_files, batch)
        with work.identified() as identified, work.research() as research:
            release_batch(identified, research, work.vault(), releaser, workers=1)
        if is_checked:
            self.judge(batch)

    def judge(self, batch: str = BATCH, *, passed: bool = True) -> None:
        """The checks of a batch have passed, or one has failed."""
        clearance = Clearance(self.workspace.settings.clearance_files)
        release = clearance.release(batch)
        for check in CHECKS:
            clearance.judge(batch, check, passed=True, release=release)
        clearance.judge(batch, CHECKS[-1], passed=passed, release=release)

    def index(self, zone: ZoneName = ZoneName.CLINICAL) -> Index:
        """The index of a zone, up to date."""
        index = Index(self.workspace.zone(zone))
        index.refresh()
        return index


@dataclass(frozen=True, slots=True)
class Asked:
    """A client of a service."""

    client: TestClient
    clinic: Clinic

    def search(self, path: str, **parameters: str) -> list[dict[str, Any]]:
        """The matches of a search; none where there is no content."""
        answer = self.client.get(ROOT + path, params=parameters)
        assert answer.status_code in (200, 204), answer.text
        found: list[dict[str, Any]] = answer.json() if answer.content else []
        return found

    def uids(self, path: str, tag: str = "0020000D", **parameters: str) -> list[str]:
        """UIDs of what a search finds, in its order."""
        return [match[tag]["Value"][0] for match in self.search(path, **parameters)]


@contextmanager
def served(clinic: Clinic, zone: ZoneName = ZoneName.CLINICAL, viewer: Path | None = None) -> Iterator[Asked]:
    """The service of a zone, asked by somebody who may see and store there."""
    access = Access(zone, clinic.workspace.settings.home / "access" / zone, project="research")
    access.accounts.add_user("tester", {Role.CLINICAL, Role.RESEARCH, Role.ANNOTATOR}, {"research"})
    token = access.accounts.create_token("tester").text
    app = create_app(clinic.workspace.zone(zone), access, viewer=viewer)
    app.state.index.refresh()
    with TestClient(app, headers={"Authorization": f"Bearer {token}"}, raise_server_exceptions=False) as client:
        yield Asked(client, clinic)
