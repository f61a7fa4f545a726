"""The service as a person starts it, asked by a public client library and by a browser."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from dicomweb_client.api import DICOMwebClient
from playwright.sync_api import Page, sync_playwright

from imaging_pipeline.web.access.gate import open_access
from imaging_pipeline.web.access.roles import Role
from imaging_pipeline.web.viewer_files import FILE_NAME, install_viewer_files
from imaging_pipeline_tests.conftest import environment
from imaging_pipeline_tests.servers.pacs import free_port, is_open, require, wait_for
from imaging_pipeline_tests.web.clinic import Clinic, image, objects

pytestmark = pytest.mark.slow

PACKAGE = Path(os.environ.get("TESTS_OHIF", Path(__file__).parents[3] / "shared" / "viewer" / FILE_NAME))
"""The viewer's package, where this machine has it."""


@dataclass(frozen=True, slots=True)
class Service:
    """A running service.

    Attributes:
        url: where it is.
        token: of somebody who may see everything in it.
        log: what it has printed.
    """

    url: str
    token: str
    log: Path


@contextmanager
def running(home: Path) -> Iterator[Service]:
    """``imaging-pipeline serve`` for the clinical zone of a home."""
    clinic = Clinic(home)
    clinic.take_in(**{name.removesuffix(".dcm"): data for name, data in objects().items()}, film=image(7, 1, 1))
    access = open_access(clinic.workspace.settings, "clinical")
    access.accounts.add_user("tester", {Role.CLINICAL}, set())
    token, port, log = access.accounts.create_token("tester").text, free_port(), home / "serve.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "imaging_pipeline.cli", "serve", "--zone", "clinical", "--port", str(port)],
            env=os.environ | environment(home, LANDING=str(clinic.landing)),
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(lambda: is_open(port), process)
        yield Service(f"http://127.0.0.1:{port}", token, log)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("serve") / "home"
    if PACKAGE.is_file():
        install_viewer_files(home / "viewer", PACKAGE)
    with running(home) as found:
        yield found


def test_a_public_client_searches_and_reads_and_the_log_names_nobody(service: Service) -> None:
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


def test_the_viewer_lists_studies_and_shows_an_image_and_asks_nobody_else(service: Service, tmp_path: Path) -> None:
    require("chromium")
    if not PACKAGE.is_file():
        pytest.skip(f"{FILE_NAME} not found: npm pack @ohif/app, and name the file in TESTS_OHIF")
    elsewhere: list[str] = []
    errors: list[str] = []
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader"]
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
        page = browser.new_page(viewport={"width": 1200, "height": 800})
        page.on("request", lambda each: elsewhere.append(each.url) if _is_elsewhere(each.url, service) else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        _log_in(page, service)
        page.goto(f"{service.url}/viewer/")
        page.get_by_text("MEYER").first.wait_for(timeout=60_000)
        page.goto(f"{service.url}/viewer/viewer?StudyInstanceUIDs=2.25.3")
        page.locator("canvas.cornerstone-canvas").first.wait_for(timeout=60_000)
        assert page.evaluate("crossOriginIsolated")
        page.screenshot(path=tmp_path / "viewer.png")
        browser.close()
    assert not elsewhere
    assert not errors


def _is_elsewhere(url: str, service: Service) -> bool:
    return not url.startswith((service.url, f"blob:{service.url}", "data:"))


def _log_in(page: Page, service: Service) -> None:
    page.goto(f"{service.url}/login")
    page.fill("input[name=token]", service.token)
    page.click("button")
    page.wait_for_load_state()
