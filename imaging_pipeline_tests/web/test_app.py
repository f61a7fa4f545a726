"""The application around the services: what it can do, the viewer, and what answers never say."""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.web import viewer_files
from imaging_pipeline.web.index import Index
from imaging_pipeline.web.isolation import HEADERS
from imaging_pipeline.web.viewer_files import install_viewer_files, installed_viewer
from imaging_pipeline.web.zone import ZoneName
from imaging_pipeline_tests.web.clinic import ROOT, Asked, Clinic, image, served

PAGE = '<html><script>window.PUBLIC_URL="/"</script><script src="/app.bundle.js"></script><a href="//x"></a></html>'
DOCUMENTS = Path(__file__).parents[2] / "docs"


def package(folder: Path, **files: str) -> Path:
    """A package as the registry gives it."""
    path = folder / "viewer.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in ({"dist/index.html": PAGE, "src/index.js": "no"} | files).items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def believe(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this be the package that is expected."""
    digest = hashlib.sha512(path.read_bytes()).digest()
    monkeypatch.setattr(viewer_files, "INTEGRITY", base64.b64encode(digest).decode())


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    folder = tmp_path_factory.mktemp("app")
    clinic = Clinic(folder / "home")
    clinic.take_in(film=image(7, 1, 1, PatientName="Zwetschge^Q", PatientID="P7"))
    with pytest.MonkeyPatch.context() as patch:
        chunk = '__webpack_require__.p = "/";'
        archive = package(folder, **{"dist/a.bundle.0123456789abcdef.js": chunk, "dist/a.css": "url(/x.woff2)"})
        believe(archive, patch)
        viewer = install_viewer_files(folder / "viewer", archive)
    (folder / "secret.txt").write_text("secret")
    (viewer / "link.txt").symlink_to(folder / "secret.txt")
    with served(clinic, viewer=viewer) as found:
        yield found


def test_the_capabilities_name_every_service_that_answers(asked: Asked) -> None:
    answer = asked.client.options(ROOT, headers={"Accept": "application/vnd.sun.wadl+xml"})
    tree = ET.fromstring(answer.content)
    methods = {
        (resource.get("path"), method.get("name"))
        for resource in tree.findall(".//{*}resource")
        for method in resource.findall("{*}method")
    }
    instance = "studies/{study}/series/{series}/instances/{instance}"
    assert {
        ("studies", "GET"),
        ("studies", "POST"),
        (instance, "GET"),
        (f"{instance}/frames/{{frames}}", "GET"),
    } <= methods
    resources = tree.find("{*}resources")
    assert resources is not None
    assert resources.get("base") == f"http://testserver{ROOT}"


def test_the_conformance_page_names_every_resource(asked: Asked) -> None:
    page = (DOCUMENTS / "reference" / "dicomweb_conformance.md").read_text(encoding="utf-8")
    described = asked.client.get(ROOT, headers={"Accept": "application/json"}).json()
    assert len(described) > 20
    missing = [one["path"] for one in described if f"`{one['path']}`" not in page]
    assert not missing


def test_the_viewer_is_served_below_its_path_and_knows_this_service_alone(asked: Asked) -> None:
    page = asked.client.get("/viewer/")
    assert 'src="/viewer/app.bundle.js"' in page.text
    assert 'PUBLIC_URL="/viewer/"' in page.text
    assert 'href="//x"' in page.text
    assert asked.client.get("/viewer/viewer?StudyInstanceUIDs=2.25.7").text == page.text
    configuration = asked.client.get("/viewer/app-config.js")
    assert configuration.headers["content-type"].startswith("text/javascript")
    assert f'"wadoRoot": "{ROOT}"' in configuration.text
    assert "http" not in configuration.text
    assert '"imaging-pipeline, clinical zone"' in configuration.text
    assert '"value": "no pneumonia"' in configuration.text
    chunk = asked.client.get("/viewer/a.bundle.0123456789abcdef.js")
    assert chunk.text == '__webpack_require__.p = "/viewer/";'
    assert "immutable" in chunk.headers["cache-control"]
    assert asked.client.get("/viewer/a.css").text == "url(/viewer/x.woff2)"
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert asked.client.get("/viewer", follow_redirects=False).headers["location"].endswith("/viewer/")


@pytest.mark.parametrize(
    "path", ["missing.js", "../secret.txt", "..%2Fsecret.txt", "%2e%2e/secret.txt", "link.txt", "//etc/passwd.x"]
)
def test_nothing_outside_the_viewers_folder_is_served(asked: Asked, path: str) -> None:
    answer = asked.client.get(f"/viewer/{path}")
    assert answer.status_code == 404
    assert "secret" not in answer.text


def test_every_answer_keeps_other_sites_away(asked: Asked) -> None:
    for path in ("/viewer/", f"{ROOT}/studies", "/health", "/nothing", "/login"):
        headers = asked.client.get(path).headers
        assert HEADERS.items() <= dict(headers).items()


def test_without_the_viewer_the_service_says_how_to_get_it(tmp_path: Path) -> None:
    clinic = Clinic(tmp_path / "home")
    clinic.take_in(film=image(7, 1, 1))
    with served(clinic) as found:
        assert "viewer install" in found.client.get("/viewer/").json()["detail"]


def test_a_package_with_another_digest_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="SHA-512"):
        install_viewer_files(tmp_path / "viewer", package(tmp_path))
    assert list((tmp_path / "viewer").iterdir()) == []


def test_what_is_installed_stays_and_half_an_installation_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = package(tmp_path)
    believe(archive, monkeypatch)
    assert installed_viewer(tmp_path / "viewer") is None
    files = install_viewer_files(tmp_path / "viewer", archive)
    assert installed_viewer(tmp_path / "viewer") == files
    assert sorted(path.name for path in files.iterdir()) == ["index.html"]  # nothing but what a browser needs
    archive.unlink()
    assert install_viewer_files(tmp_path / "viewer", archive) == files


def test_errors_of_the_service_repeat_nothing_and_log_nothing_of_a_patient(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_arguments: object) -> None:
        raise ValueError("Zwetschge^Q 2.25.7")

    monkeypatch.setattr(Index, "search", broken)
    with caplog.at_level(logging.DEBUG):
        answer = asked.client.get(f"{ROOT}/studies", params={"PatientName": "Zwetschge*"})
    assert answer.status_code == 500
    logged = [
        record.getMessage() for record in caplog.records if not record.name.startswith("httpx")
    ]  # the test's own client
    assert any("ValueError" in text for text in logged)
    for text in (answer.text, *logged):
        assert "wetschge" not in text
        assert "2.25.7" not in text


def test_the_index_follows_the_lake_while_the_service_runs(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imaging_pipeline.web.app.REFRESH_SECONDS", 0.1)
    clinic = asked.clinic
    with served(clinic, ZoneName.CLINICAL) as found:
        clinic.take_in("2026-02-01.00001", late=image(8, 1, 1))
        deadline = time.monotonic() + 60
        while len(found.uids("/studies")) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert sorted(found.uids("/studies")) == ["2.25.7", "2.25.8"]
