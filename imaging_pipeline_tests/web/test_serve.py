"""The service as a person starts it, asked by a public client library."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from dicomweb_client.api import DICOMwebClient

from imaging_pipeline.web.zone import ZoneName
from imaging_pipeline_tests.web.clinic import BATCH, Clinic, objects
from imaging_pipeline_tests.web.service import running

pytestmark = pytest.mark.slow


def test_a_public_client_searches_and_reads_and_the_log_names_nobody(tmp_path: Path) -> None:
    clinic = Clinic(tmp_path / "home")
    clinic.take_in(BATCH, **{name.removesuffix(".dcm"): data for name, data in objects().items()})
    with running(clinic, ZoneName.CLINICAL) as service:
        headers = {"Authorization": f"Bearer {service.token}"}
        client = DICOMwebClient(f"{service.url}/dicom-web", headers=headers)
        found = client.search_for_studies(
            search_filters={"PatientName": "M*", "ModalitiesInStudy": "CT"}, fuzzymatching=True
        )
        assert [match["0020000D"]["Value"] for match in found] == [["2.25.1"]]
        assert len(client.search_for_series("2.25.1")) == 2
        assert len(client.search_for_instances("2.25.1", "2.25.1.1", fields=["BitsStored"])) == 3
        assert len(client.retrieve_study_metadata("2.25.1")) == 4
        assert client.search_for_studies(search_filters={"PatientID": "nobody"}) == []
        instance = client.retrieve_instance("2.25.1", "2.25.1.1", "2.25.1.1.2")
        assert (instance.PatientName, instance.InstanceNumber) == ("Müller^Jörg", 2)
        assert httpx.get(f"{service.url}/dicom-web/studies").status_code == 401
        log = service.log.read_text()
    assert "Traceback" not in log
    assert not [word for word in ("2.25.1", "ller", "nobody") if word in log]
