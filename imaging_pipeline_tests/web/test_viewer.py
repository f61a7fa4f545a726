"""The OHIF viewer, hosted by the service, in a real browser."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page

from imaging_pipeline.pneumonia.annotation_labels import import_annotations
from imaging_pipeline.web.addresses import viewer_path
from imaging_pipeline.web.viewer_files import install_viewer_files
from imaging_pipeline.web.zone import ZoneName
from imaging_pipeline_tests.web.clinic import BATCH, CT, Clinic, image
from imaging_pipeline_tests.web.service import Service, browsing, require_viewer, running

pytestmark = pytest.mark.slow

STUDY_UID, MODALITIES = "0020000D", "00080061"
SIZE = 128
LENGTH = "410668003"
"""Of SNOMED CT, as the viewer codes it."""


def slice_of_a_stack(number: int) -> bytes:
    """One slice of a CT stack of 5."""
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    disc = np.where((x - 64) ** 2 + (y - 64) ** 2 < 1600, 1000, 100) + number * 50
    return image(
        1, 1, number, SOPClassUID=CT, Modality="CT", PatientName="MEYER^Anna", PatientID="P1", StudyDate="20210105",
        Rows=SIZE, Columns=SIZE, PixelData=disc.astype("<u2").tobytes(), PixelSpacing=[2, 2], SliceThickness=3,
        ImagePositionPatient=[0, 0, 3 * number], ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        FrameOfReferenceUID="2.25.1.9", RescaleIntercept=-1024, RescaleSlope=1, ViewPosition=None,
        PresentationIntentType=None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Clinic:
    package = require_viewer()
    clinic = Clinic(tmp_path_factory.mktemp("viewer") / "home")
    install_viewer_files(clinic.workspace.settings.viewer_files, package)
    clinic.take_in(BATCH, **{f"ct{number}": slice_of_a_stack(number) for number in range(1, 6)})
    clinic.release()
    return clinic


def studies(page: Page, service: Service) -> list[dict[str, Any]]:
    """The studies of the service, asked with the browser's session."""
    answer = page.request.get(f"{service.url}/dicom-web/studies", headers={"Accept": "application/dicom+json"})
    found: list[dict[str, Any]] = answer.json()
    return found


def show(page: Page, service: Service, study: str) -> None:
    """Open a study in the viewer and wait for its image."""
    page.goto(f"{service.url}{viewer_path(study)}")
    page.locator("canvas.cornerstone-canvas").first.wait_for()
    page.get_by_text("1/5").or_(page.get_by_text("5/5")).first.wait_for()


def test_a_stack_of_the_clinic_is_listed_shown_and_scrolled(clinic: Clinic) -> None:
    with running(clinic, ZoneName.CLINICAL) as service, browsing(service) as seen:
        page = seen.page
        page.goto(f"{service.url}/viewer/")
        page.get_by_text("Meyer, Anna").or_(page.get_by_text("MEYER, Anna")).first.wait_for()
        page.get_by_text("imaging-pipeline, clinical zone").first.wait_for()
        show(page, service, "2.25.1")
        assert page.evaluate("crossOriginIsolated")
        page.locator(".viewport-element").first.hover()
        page.mouse.wheel(0, 120)
        page.get_by_text("(2/5)").first.wait_for()
    assert not seen.elsewhere
    assert not seen.errors


def test_a_measurement_on_a_released_image_becomes_rows_and_is_seen_again(clinic: Clinic) -> None:
    with running(clinic, ZoneName.RESEARCH) as service, browsing(service) as seen:
        page = seen.page
        study = studies(page, service)[0][STUDY_UID]["Value"][0]
        assert study != "2.25.1"
        show(page, service, study)
        measure(page)
        with page.expect_response(lambda answer: answer.request.method == "POST") as stored:
            page.get_by_role("button", name="Save").click()
        assert stored.value.status == 202
        assert studies(page, service)[0][MODALITIES]["Value"] == ["CT", "SR"]
        show(page, service, study)
        page.locator('[data-cy^="study-browser-thumbnail"]', has_text="SR").dblclick()
        page.get_by_text("continue tracking").first.wait_for()  # it is drawn, and may be taken up
        assert not seen.elsewhere
        assert not seen.errors
    with clinic.workspace.research(read_only=True) as lake:
        lengths = lake.rows(
            "SELECT numeric_value FROM deid.dicom_sr_content_item WHERE concept_name.code_value = ?", [LENGTH]
        )
        (annotation,) = lake.rows("SELECT kind, user_name FROM gold.annotation")
    assert annotation == ("SR", "tester")
    assert len(lengths) == 1
    assert 10 < float(str(lengths[0][0])) < 300  # mm; the image is 256 mm wide


def test_a_finding_that_is_named_in_the_viewer_is_a_label(clinic: Clinic) -> None:
    with running(clinic, ZoneName.RESEARCH) as service, browsing(service) as seen:
        page = seen.page
        show(page, service, studies(page, service)[0][STUDY_UID]["Value"][0])
        measure(page, "Pneumonia")
        with page.expect_response(lambda answer: answer.request.method == "POST") as stored:
            page.get_by_role("button", name="Save").click()
        assert stored.value.status == 202
        assert not seen.errors
    with clinic.workspace.research() as lake:
        import_annotations(lake)
        found = lake.rows(
            """SELECT task, label_numeric, subject_level
            FROM gold.label JOIN deid.dicom_instance ON instance_key = subject_key"""
        )
    assert found == [("pneumonia", 1.0, "INSTANCE")]


def measure(page: Page, finding: str = "") -> None:
    """Draw a line over the image, name it if wanted, and begin to save it."""
    page.locator('[data-cy="MeasurementTools-split-button-primary"]').click()
    box = page.locator(".viewport-element").first.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.5
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y + 5, steps=4)
    page.mouse.move(x + 150, y + 20, steps=4)
    page.mouse.up()
    page.get_by_role("button", name="Yes", exact=True).click()
    page.locator('[data-cy="trackedMeasurements-btn"]').click()
    if finding:
        page.locator('[data-cy="actionsMenuTrigger"]').first.click()
        page.get_by_role("menuitem", name="Rename").click()
        page.get_by_placeholder("Type label").fill(finding)
        page.keyboard.press("Enter")
        page.locator('[data-cy="data-row-title"]', has_text=finding).wait_for()
    page.get_by_role("button", name="Create SR").click()
