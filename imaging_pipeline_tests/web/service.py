"""The service as a person starts it, in a process of its own, and a browser that looks at it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Page, Request, sync_playwright

from imaging_pipeline.web.access.gate import open_access
from imaging_pipeline.web.access.roles import Role
from imaging_pipeline.web.viewer_files import FILE_NAME
from imaging_pipeline.web.zone import ZoneName
from imaging_pipeline_tests.conftest import environment
from imaging_pipeline_tests.servers.pacs import free_port, is_open, require, wait_for
from imaging_pipeline_tests.web.clinic import Clinic

PACKAGE = Path(os.environ.get("TESTS_OHIF", Path(__file__).parents[3] / "shared" / "viewer" / FILE_NAME))
"""The viewer's package, where this machine has it."""

BROWSER = Path("/usr/bin/chromium")

SECONDS = 120
"""A browser without a graphics card is slow on a busy machine."""


@dataclass(frozen=True, slots=True)
class Service:
    """A running service.

    Attributes:
        url: where it is.
        token: of somebody who may see and store everything in it.
        log: what it has printed.
    """

    url: str
    token: str
    log: Path


@contextmanager
def running(clinic: Clinic, zone: ZoneName) -> Iterator[Service]:
    """``imaging-pipeline serve`` for a zone of a clinic."""
    settings = clinic.workspace.settings
    access = open_access(settings, zone)
    access.accounts.add_user("tester", {Role(zone), Role.ANNOTATOR}, {settings.project})
    token, port, log = access.accounts.create_token("tester").text, free_port(), settings.home / "serve.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "imaging_pipeline.cli", "serve", "--zone", zone, "--port", str(port)],
            env=os.environ | environment(settings.home, LANDING=str(clinic.landing)),
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


def require_viewer() -> Path:
    """The viewer's package; the test is skipped where it or a browser is missing."""
    require(BROWSER.name)
    if not PACKAGE.is_file():
        pytest.skip(f"{FILE_NAME} not found: npm pack @ohif/app, and name the file in TESTS_OHIF")
    return PACKAGE


@dataclass(slots=True)
class Seen:
    """What a browser has met.

    Attributes:
        page: the open page.
        elsewhere: addresses outside the service that were asked for.
        errors: exceptions that no script has caught.
    """

    page: Page
    elsewhere: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@contextmanager
def browsing(service: Service) -> Iterator[Seen]:
    """A browser that is logged in."""
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader"]
        browser = playwright.chromium.launch(executable_path=BROWSER, args=arguments)
        page = browser.new_page(viewport={"width": 1200, "height": 800})
        page.set_default_timeout(SECONDS * 1000)
        seen = Seen(page)

        def note(request: Request) -> None:
            if not request.url.startswith((service.url, f"blob:{service.url}", "data:")):
                seen.elsewhere.append(request.url)

        page.on("request", note)
        page.on("pageerror", lambda error: seen.errors.append(str(error)))
        page.goto(f"{service.url}/login")
        page.fill("input[name=token]", service.token)
        page.click("button")
        page.wait_for_load_state()
        try:
            yield seen
        finally:
            browser.close()
