"""A research user tries to reach one identified byte: by every route, with what they may know, and by SQL.

The installation has both zones, made by the pipeline's own steps. Whatever comes back, whatever is logged and every
file the service leaves is searched for identifiers; and files of the identified side must not even be opened.
"""

from __future__ import annotations

import base64
import gzip
import io
import itertools
import logging
import re
import shutil
import sys
import urllib.parse
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from fastapi.testclient import TestClient
from pydicom import dcmread

from imaging_pipeline.catalog.bronze import load_bronze
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.deid.clearance import CHECKS, Clearance
from imaging_pipeline.deid.release import Releaser, release_batch
from imaging_pipeline.errors import ImagingError
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.console import run_query
from imaging_pipeline.metadata.silver import load_silver
from imaging_pipeline.pacs.config import ZoneName
from imaging_pipeline.settings import Settings
from imaging_pipeline.web.access.gate import Access, open_access
from imaging_pipeline.web.access.roles import Role
from imaging_pipeline.web.app import create_app
from imaging_pipeline_tests.conftest import MASTER_KEY, environment, folder
from imaging_pipeline_tests.deid.corpus import chest_film, encode

BATCH = "2026-01-01.00001"
STUDY, SERIES, INSTANCE = "1.2.276.77.1", "1.2.276.77.1.1", "1.2.276.77.1.1.1"
HELD_STUDY = "1.2.276.77.9"
UNKNOWN = "1.2.276.78.5"
COOKIE = "imaging_session_research"

SECRETS = (
    *(text.encode() for text in (
        "1.2.276.77.", "Krautinger", "KRAUTINGER", "Adelheid", "MRN-7781234", "ACC992817", "19610412", "20210105",
        "Ottilien", "Krautschnabel", "adelheid_k.dcm", "inner_k.dcm", MASTER_KEY,
    )),
    base64.b64decode(MASTER_KEY),
)  # fmt: skip
"""What only the identified side knows; originals' UIDs all begin with the first."""

Item = TypeVar("Item")

shares = pytest.mark.parametrize(
    "share", [pytest.param(40, id="some"), pytest.param(1, id="all", marks=pytest.mark.slow)]
)
"""One attack in so many: all of them take a minute."""

QUIET_LOGGERS = ("httpx", "httpcore")
"""Of the client, which says what it asks for."""


@dataclass
class Installation:
    """Both zones of a home, and the research service over it."""

    settings: Settings
    access: Access
    client: TestClient
    study: str
    series: str
    instance: str

    @property
    def home(self) -> Path:
        return self.settings.home

    def ask(self, method: str, path: str, **headers: str) -> httpx.Response:
        """As a research user who may do all that one may."""
        return self.client.request(method, path, headers=headers | self.bearer)

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"}

    def __post_init__(self) -> None:
        self.access.accounts.add_user("mallory", {Role.RESEARCH, Role.ANNOTATOR}, {self.settings.project})
        self._token = self.access.accounts.create_token("mallory").text


def film(number: int, **more: object) -> bytes:
    uids = {
        "StudyInstanceUID": STUDY, "SeriesInstanceUID": SERIES, "SOPInstanceUID": f"{SERIES}.{number}",
        "PatientName": "Krautinger^Adelheid", "PatientID": "MRN-7781234",
    }  # fmt: skip
    return encode(chest_film(**uids | more))


def take_in(settings: Settings) -> None:
    """A film, a film in an archive, and one that is held; by the steps that the assets call."""
    landing = settings.landing / "adelheid_krautinger"
    landing.mkdir(parents=True)
    (landing / "adelheid_k.dcm").write_bytes(film(1))
    held = {
        "StudyInstanceUID": HELD_STUDY,
        "SeriesInstanceUID": f"{HELD_STUDY}.1",
        "SOPInstanceUID": f"{HELD_STUDY}.1.1",
    }
    (landing / "held.dcm").write_bytes(film(9, BurnedInAnnotation="YES", **held))
    with zipfile.ZipFile(landing / "scans.zip", "w") as archive:
        archive.writestr("inner_k.dcm", film(2))
    workspace = Workspace(settings)
    reader = workspace.reader()
    (page,) = folder(settings.landing).pages(None, datetime.now(UTC))
    members = [member for each in page.objects if each.is_archive for member in reader.list_members(each)]
    manifest = [each for each in page.objects if not each.is_archive] + members
    releaser = Releaser(workspace.profile(), workspace.keys(), reader, settings.deid_files, BATCH)
    with workspace.identified() as identified, workspace.research() as research:
        load_bronze(identified, BATCH, manifest, reader, run_id="run", workers=1)
        load_silver(identified, BATCH, workspace.version_policy())
        counts = release_batch(identified, research, workspace.vault(), releaser, workers=1)
    assert (counts.released, counts.held) == (2, 1)
    for check in CHECKS:
        Clearance(settings.clearance_files).judge(BATCH, check, passed=True, release="")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    home = tmp_path_factory.mktemp("home")
    settings = Settings.from_environment(environment(home, WORKERS="1"))
    take_in(settings)
    open_access(settings, "clinical").accounts.add_user("doctor", {Role.CLINICAL})
    viewer = home / "viewer_files"
    viewer.mkdir()
    (viewer / "index.html").write_text("<html>viewer</html>")
    (viewer / "app.js").write_text("viewer")
    (viewer / "leak.dcm").symlink_to(settings.landing / "adelheid_krautinger" / "adelheid_k.dcm")
    (viewer / "leak").symlink_to(home / "identified", target_is_directory=True)
    access = open_access(settings, "research")
    places = (home / "identified", home / "vault", settings.landing)
    with watching(*places) as opened:
        app = create_app(Workspace(settings).zone(ZoneName.RESEARCH), access, viewer=viewer)
        with Watched(app, raise_server_exceptions=False, follow_redirects=False) as client:
            app.state.index.refresh()
            client.places = places
            ((uri,),) = research_rows(settings, "SELECT min(storage_uri) FROM deid.dicom_file_location")
            released = dcmread(str(uri).removeprefix("file://"))
            uids = (released.StudyInstanceUID, released.SeriesInstanceUID, released.SOPInstanceUID)
            made = Installation(settings, access, client, *map(str, uids))
            assert not opened
            yield made
    for path in (path for path in (home / "research").rglob("*") if path.is_file()):
        assert not leaks(path.read_bytes()), path.name


class Watched(TestClient):
    """A client that sees to it that no request makes the service open a file of the identified side."""

    places: tuple[Path, ...] = ()

    def request(self, *arguments: Any, **more: Any) -> httpx.Response:
        with watching(*self.places) as opened:
            answer = super().request(*arguments, **more)
        assert not opened, arguments
        return answer


def research_rows(settings: Settings, sql: str) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in run_query(sql, [settings.research]).to_pylist()]


_watched: list[tuple[tuple[str, ...], list[str]]] = []


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if _watched and event in {"open", "os.listdir", "os.scandir", "sqlite3.connect", "os.link", "os.symlink"}:
        where = str(arguments[0])
        if isinstance(arguments[0], bytes | str | Path) and not isinstance(arguments[0], int):
            for places, opened in _watched:
                if where.removeprefix("file:").startswith(places):
                    opened.append(event)


sys.addaudithook(_hook)


@contextmanager
def watching(*places: Path) -> Iterator[list[str]]:
    """Notes what this process opens of some folders; those of DuckDB are not seen, so another test takes them away."""
    opened: list[str] = []
    _watched.append((tuple(map(str, places)), opened))
    try:
        yield opened
    finally:
        _watched.pop()


def unpacked(content: bytes) -> Iterable[bytes]:
    """An answer as it is, and what is inside of it."""
    yield content
    if content[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            yield from (archive.read(name) + name.encode() for name in archive.namelist())
    for unpack in (gzip.decompress, zlib.decompress):
        try:
            yield unpack(content)
        except (OSError, zlib.error, EOFError):
            continue


def leaks(content: bytes, allowed: bytes = b"") -> list[bytes]:
    """Secrets in some bytes, also in UTF-16 and base64; what was sent may come back."""
    found = []
    for text, secret in itertools.product(unpacked(content), SECRETS):
        forms = (secret, secret.decode("latin-1").encode("utf-16-le"), base64.b64encode(secret)[:-4])
        found += [form for form in forms if form and form in text and form not in allowed]
    return found


def all_of(answer: httpx.Response) -> bytes:
    return answer.content + str(answer.headers.multi_items()).encode()


def refuses_to_leak(answer: httpx.Response) -> None:
    assert not leaks(all_of(answer)), (answer.request.method, str(answer.request.url), answer.status_code)
    assert answer.status_code < 500 or answer.status_code == 501, (answer.status_code, str(answer.request.url))


def some(attacks: Iterable[Item], share: int) -> Iterator[Item]:
    """One in ``share``, of every kind as far as it goes."""
    return itertools.islice(attacks, 0, None, share)


LEVELS = ("studies", "series", "instances")
RESOURCES = ("", "/metadata", "/rendered", "/thumbnail", "/series", "/instances", "/bulkdata/7FE00010", "/frames/1",
             "/frames/1/rendered", "/frames/1/thumbnail", "/pixeldata", "/zip")  # fmt: skip


def uid_paths(study: str, series: str, instance: str) -> Iterator[str]:
    for resource in RESOURCES:
        yield f"/dicom-web/studies/{study}{resource}"
        yield f"/dicom-web/studies/{study}/series/{series}{resource}"
        yield f"/dicom-web/studies/{study}/series/{series}/instances/{instance}{resource}"
    for page in ("studies", "series", "instances", "patients"):
        yield f"/{page}/{study}"
    yield f"/studies/{study}/series/{series}"
    yield f"/studies/{study}/series/{series}/instances/{instance}"
    yield f"/dicom-web/wado?requestType=WADO&studyUID={study}&seriesUID={series}&objectUID={instance}"
    yield f"/viewer/viewer?StudyInstanceUIDs={study}"


def test_the_research_service_serves_what_was_released(installed: Installation) -> None:
    path = f"/dicom-web/studies/{installed.study}/series/{installed.series}/instances/{installed.instance}"
    answer = installed.ask("GET", path, Accept='multipart/related; type="application/dicom"')
    assert answer.status_code == 200
    assert b"DICM" in answer.content
    assert len(installed.ask("GET", "/dicom-web/instances").json()) == 2


@shares
def test_no_route_gives_an_identified_byte_for_uids_of_the_research_side(installed: Installation, share: int) -> None:
    for path in some(uid_paths(installed.study, installed.series, installed.instance), share // 3 or 1):
        for accept in ("*/*", 'multipart/related; type="application/dicom"', "application/zip", "text/html"):
            refuses_to_leak(installed.ask("GET", path, Accept=accept))
        refuses_to_leak(installed.ask("GET", path, Range="bytes=0-99999999"))


@shares
def test_an_original_uid_opens_nothing_and_cannot_be_told_from_one_that_nobody_has(
    installed: Installation, share: int
) -> None:
    originals = uid_paths(STUDY, SERIES, INSTANCE)
    helds = uid_paths(HELD_STUDY, f"{HELD_STUDY}.1", f"{HELD_STUDY}.1.1")
    mixed = uid_paths(installed.study, SERIES, INSTANCE)
    for found, prefix in ((originals, STUDY), (helds, HELD_STUDY), (mixed, SERIES)):
        for path in some(found, share // 3 or 1):
            answer = installed.ask("GET", path)
            refuses_to_leak(answer)
            other = installed.ask("GET", path.replace(prefix, UNKNOWN))
            assert (answer.status_code, answer.content) == (other.status_code, other.content), path


@shares
@pytest.mark.parametrize("encoded", [False, True])
def test_no_search_finds_anything_by_an_identifier(installed: Installation, share: int, *, encoded: bool) -> None:
    values = (
        "Krautinger*",
        "*Adelheid*",
        "MRN-7781234",
        "ACC992817",
        STUDY,
        "19610412",
        "20210105-20210105",
        f"{STUDY},{SERIES}",
    )
    keys = ("PatientName", "00100010", "PatientID", "AccessionNumber", "StudyInstanceUID",
            "PatientBirthDate", "StudyDate", "ReferringPhysicianName", "InstitutionName", "SOPInstanceUID",
            "OtherPatientIDs")  # fmt: skip
    for level, key, value in some(itertools.product(LEVELS, keys, values), share):
        quoted = "".join(f"%{ord(letter):02X}" for letter in value) if encoded else urllib.parse.quote(value)
        answer = installed.ask("GET", f"/dicom-web/{level}?{key}={quoted}&fuzzymatching=true&includefield=all")
        refuses_to_leak(answer)
        assert answer.status_code != 200 or answer.json() == [], (level, key)


def test_everything_that_can_be_searched_holds_no_identifier(installed: Installation) -> None:
    for level in ("studies", "series", "instances"):
        for query in ("includefield=all", "includefield=00100010&includefield=00080050", "PatientName=*", "limit=1"):
            refuses_to_leak(installed.ask("GET", f"/dicom-web/{level}?{query}"))


def climbing(target: str) -> Iterator[str]:
    """A path that climbs out of a folder, in the encodings that servers have fallen for."""
    for step in (
        "../",
        "..%2f",
        "%2e%2e/",
        "%2e%2e%2f",
        "..%252f",
        "..\\",
        "..%5c",
        "....//",
        "%c0%ae%c0%ae/",
        "..%00/",
        ".%2e/",
    ):
        yield step * 6 + target
    yield f"//{target}"
    yield f"/{target}"
    yield f"%2f{target}"
    yield f"file:///{target}"


PLACES = ("/viewer/", "/viewer/leak", "/viewer/leak/", "/dicom-web/studies/", "/dicom-web/studies/1.2/series/",
          "/studies/", "/", "/thumbnails/", "/static/")  # fmt: skip


@shares
def test_no_path_climbs_out_of_what_is_served(installed: Installation, share: int) -> None:
    identified = [installed.settings.landing / "adelheid_krautinger" / "adelheid_k.dcm", installed.home / "identified"]
    identified += [installed.home / "vault" / "vault.sqlite", installed.home / "identified" / "access" / "service.key"]
    targets = {str(path).lstrip("/") for path in identified} | {
        "identified/ledger.sqlite",
        "identified/lake/catalog.sqlite",
    }
    pairs = itertools.product(PLACES, sorted(targets))
    paths = (f"{place}{tail}" for place, target in pairs for tail in climbing(target))
    for path in some(paths, share):
        answer = installed.ask("GET", path)
        assert b"SQLite format 3" not in answer.content
        assert not leaks(answer.content), path
    for path in ("/viewer/leak.dcm", "/viewer/leak/ledger.sqlite", "/viewer/leak"):
        answer = installed.ask("GET", path)
        assert answer.status_code in {200, 404}
        assert b"DICM" not in answer.content
        assert b"SQLite" not in answer.content


@shares
def test_no_method_and_no_header_changes_that(installed: Installation, share: int) -> None:
    paths = ["/", "/dicom-web/studies", f"/dicom-web/studies/{STUDY}", f"/studies/{STUDY}"]
    headers: list[dict[str, str]] = [
        {"Host": "clinical.example"}, {"X-Original-URL": f"/dicom-web/studies/{STUDY}"},
        {"X-Forwarded-Prefix": "/clinical"},
        {"X-Rewrite-URL": f"/dicom-web/studies/{STUDY}"}, {"Range": "bytes=-99999"}, {"Accept": f"{STUDY}/*"},
        {"If-None-Match": f'"{INSTANCE}"'}, {"Cookie": f"{COOKIE}=../../identified; zone=clinical"},
        {"X-Forwarded-User": "doctor"}, {"Remote-User": "doctor"}, {"Accept": "*/*; transfer-syntax=1.2.276.77.1"},
    ]  # fmt: skip
    methods = ("GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE")
    for method, path, header in some(itertools.product(methods, paths, headers), share):
        refuses_to_leak(installed.ask(method, path, **header))


def test_a_token_of_one_zone_opens_nothing_of_the_other(installed: Installation) -> None:
    clinical = open_access(installed.settings, "clinical")
    token = clinical.accounts.create_token("doctor").text
    answer = installed.client.get("/dicom-web/studies", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 401
    assert clinical.accounts.of_token(installed.bearer["Authorization"][7:]) is None


def test_nothing_stored_here_reaches_an_original(installed: Installation) -> None:
    body = film(1, SpecificCharacterSet="ISO_IR 100")
    for path in ("/dicom-web/studies", f"/dicom-web/studies/{STUDY}", f"/dicom-web/studies/{installed.study}"):
        for content_type in ("application/dicom", 'multipart/related; type="application/dicom"; boundary=x'):
            content = (
                b"--x\r\nContent-Type: application/dicom\r\n\r\n" + body + b"\r\n--x--"
                if "x" in content_type[-1:]
                else body
            )
            answer = installed.client.post(
                path, content=content, headers=installed.bearer | {"Content-Type": content_type}
            )
            assert answer.status_code >= 400
            assert not leaks(all_of(answer), allowed=body + path.encode()), path
    assert len([path for path in installed.settings.landing.rglob("*") if path.is_file()]) == 3
    assert not list((installed.home / "research" / "annotations").rglob("*.dcm"))


STATEMENTS = (
    "SELECT * FROM read_text('{file}')",
    "SELECT * FROM read_blob('{file}')",
    "SELECT * FROM '{catalog}'",
    "SELECT * FROM read_csv('{file}', sep='|')",
    "SELECT * FROM read_json_auto('{file}')",
    "SELECT * FROM read_parquet('{identified}/lake/data/**/*.parquet')",
    "SELECT * FROM '{identified}/lake/data/silver/dicom_patient/*.parquet'",
    "SELECT * FROM read_text('{research}/lake/../../identified/ledger.sqlite')",
    "SELECT * FROM glob('{identified}/**')",
    "SELECT * FROM sqlite_scan('{catalog}', 'ducklake_table')",
    "SELECT * FROM ducklake_snapshots('identified')",
    "SELECT * FROM identified.silver.dicom_patient",
    "SELECT * FROM silver.dicom_patient",
    "SELECT * FROM vault.uid_map",
    "ATTACH '{catalog}' AS x (TYPE sqlite)",
    "ATTACH 'ducklake:sqlite:{catalog}' AS x",
    "COPY (SELECT 1) TO '{research}/x.csv'",
    "COPY deid.dicom_study FROM '{file}'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "SET allowed_directories = ['/']",
    "RESET lock_configuration",
    "PRAGMA database_list",
    "CALL pragma_version()",
    "EXPORT DATABASE '{research}/x'",
    "IMPORT DATABASE '{identified}'",
    "CREATE TABLE deid.x AS SELECT * FROM read_text('{file}')",
    "CREATE MACRO leak() AS TABLE SELECT * FROM read_text('{file}')",
    "SELECT 1; SELECT * FROM read_text('{file}')",
    "SELECT (SELECT content FROM read_text('{file}'))",
    "WITH x AS (SELECT * FROM read_text('{file}')) SELECT * FROM x",
    "SELECT * FROM deid.dicom_study WHERE EXISTS (SELECT * FROM read_text('{file}'))",
    "SELECT * FROM query('SELECT * FROM read_text(''{file}'')')",
    "SELECT * FROM query_table('identified.silver.dicom_patient')",
    "FROM read_text('{file}')",
    "PIVOT read_text('{file}') ON filename",
    "SUMMARIZE SELECT * FROM read_text('{file}')",
    "DESCRIBE SELECT * FROM '{file}'",
    "DESCRIBE identified.silver.dicom_patient",
    "EXPLAIN ANALYZE SELECT * FROM read_text('{file}')",
    "SELECT getenv('IMAGING_PIPELINE_MASTER_KEY')",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_databases()",
    "SELECT predict_pneumonia_file('{file}')",
    "SELECT predict_pneumonia('{file}')",
    "SELECT getvariable('x'), current_setting('secret_directory')",
    "SELECT json_execute_serialized_sql(json_serialize_sql('SELECT * FROM read_text(''{file}'')'))",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
    "SELECT data_path FROM __ducklake_metadata_research.ducklake_data_file",
    "SELECT * FROM __ducklake_metadata_identified.ducklake_table",
    "SHOW ALL TABLES",
)


@shares
def test_no_query_on_the_research_lake_reads_an_identified_byte(installed: Installation, share: int) -> None:
    names = {
        "file": str(installed.settings.landing / "adelheid_krautinger" / "adelheid_k.dcm"),
        "identified": str(installed.home / "identified"),
        "catalog": str(installed.home / "identified" / "lake" / "catalog.sqlite"),
        "research": str(installed.home / "research"),
    }
    for statement in some(STATEMENTS, share // 3 or 1):
        sql = statement.format(**names)
        try:
            found = str(run_query(sql, [installed.settings.research]).to_pylist())
        except ImagingError as error:
            found = str(error)
        assert not leaks(found.encode(), allowed=sql.encode()), statement
        assert "SQLite format" not in found, statement


def test_the_whole_research_lake_holds_no_identifier(installed: Installation) -> None:
    with Workspace(installed.settings).research(read_only=True) as lake:
        for schema in ("deid", "gold"):
            for table in registry.tables_of(schema):
                rows = lake.rows(f"SELECT * FROM {schema}.{table.name}")
                assert not leaks(str(rows).encode()), table.name


@shares
def test_logs_and_audit_of_the_research_service_hold_no_identifier(
    installed: Installation, share: int, caplog: pytest.LogCaptureFixture
) -> None:
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    with caplog.at_level(logging.DEBUG):
        for path in some(uid_paths(STUDY, SERIES, INSTANCE), share // 3 or 1):
            installed.ask("GET", path, Accept="text/html", Range="bytes=x", Cookie=f"{COOKIE}=Krautinger")
            installed.client.get(path, headers={"Accept": "application/json"})
        for query in ("PatientName=Krautinger", "Krautinger=1", "limit=Krautinger", "00100010[Krautinger]=1"):
            installed.ask("GET", f"/dicom-web/studies?{query}")
        installed.client.post(
            "/login", data={"token": "Krautinger", "next": STUDY}, headers={"Origin": "http://testserver"}
        )
        installed.client.post(
            f"/dicom-web/studies/{STUDY}",
            content=film(1),
            headers=installed.bearer | {"Content-Type": "application/dicom"},
        )
    records = [record for record in caplog.records if not record.name.startswith(QUIET_LOGGERS)]
    text = "\n".join(f"{record.name} {record.getMessage()} {record.exc_text}" for record in records)
    assert not leaks(text.encode())
    assert not leaks(str(list(installed.access.audit.rows())).encode())
    assert installed.access.audit.verify().is_sound


def test_a_released_file_replaced_by_a_link_to_an_original_is_not_served(
    installed: Installation, tmp_path: Path
) -> None:
    ((uri,),) = research_rows(
        installed.settings,
        f"SELECT storage_uri FROM deid.dicom_file_location JOIN deid.dicom_instance USING (instance_key) "
        f"WHERE sop_instance_uid = '{installed.instance}'",
    )
    path = Path(str(uri).removeprefix("file://"))
    kept = tmp_path / "kept.dcm"
    shutil.move(path, kept)
    try:
        path.symlink_to(installed.settings.landing / "adelheid_krautinger" / "adelheid_k.dcm")
        for each in uid_paths(installed.study, installed.series, installed.instance):
            answer = installed.ask("GET", each, Accept="*/*")
            assert not leaks(all_of(answer)), each
    finally:
        path.unlink()
        shutil.move(kept, path)


@pytest.mark.slow
def test_the_research_service_works_where_there_is_no_identified_side_and_no_master_key(
    installed: Installation, tmp_path: Path
) -> None:
    shutil.copytree(installed.home / "research", tmp_path / "home" / "research")
    variables = environment(tmp_path / "home")
    del variables["IMAGING_PIPELINE_MASTER_KEY"]
    settings = Settings.from_environment(variables)
    app = create_app(Workspace(settings).zone(ZoneName.RESEARCH), open_access(settings, "research"))
    with TestClient(app) as client:
        app.state.index.refresh()
        assert client.get("/dicom-web/studies", headers=installed.bearer).status_code == 200
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["research"]


def test_the_search_for_identifiers_finds_them(installed: Installation) -> None:
    original = film(1)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("x.dcm", original)
    for content in (original, archive.getvalue(), gzip.compress(original), "Krautinger".encode("utf-16-le")):
        assert leaks(content)


def routes_of(installed: Installation) -> Iterator[tuple[str, str]]:
    """Method and path of every route of the service, with UIDs of the research side in it."""
    values = {"study": installed.study, "series": installed.series, "instance": installed.instance}

    def places(routes: Iterable[Any], prefix: str) -> Iterator[tuple[str, str]]:
        for route in routes:
            path = prefix + str(getattr(route, "path", ""))
            inner = getattr(route, "original_router", None) or getattr(route, "app", None)
            if getattr(route, "methods", None) is None:
                context = getattr(route, "include_context", None)
                below = prefix + str(getattr(context, "prefix", "")) if context is not None else path
                yield from places(getattr(inner, "routes", None) or [], below)
                yield "GET", path or "/"
            else:
                yield from ((method, path) for method in sorted(route.methods))

    for method, path in places(installed.client.app.routes, ""):  # type: ignore[attr-defined]
        yield method, re.sub(r"\{(\w+)[^}]*\}", lambda name: values.get(name[1], "1"), path)


PUBLIC = ("/login", "/logout", "/health", "/link/")


def test_every_route_is_closed_to_strangers_and_to_tokens_that_are_none(installed: Installation) -> None:
    accounts = installed.access.accounts
    accounts.add_user("leaver", {Role.RESEARCH, Role.ANNOTATOR, Role.OPERATOR}, {installed.settings.project})
    revoked, good = accounts.create_token("leaver"), accounts.create_token("leaver")
    accounts.revoke_token(revoked.token_id)
    forged = f"{good.text[:-1]}{'0' if good.text[-1] != '0' else '1'}"
    nobody: list[dict[str, str]] = [
        {},
        {"Authorization": f"Bearer {revoked.text}"},
        {"Authorization": f"Bearer {forged}"},
        {"Authorization": "Basic bWFsbG9yeTp4"},
        {"Cookie": f"{COOKIE}={good.text}"},
        {"Authorization": "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJkb2N0b3IifQ."},
    ]
    found = [(method, path) for method, path in routes_of(installed) if not path.startswith(PUBLIC)]
    assert len({path for _, path in found}) > 30
    assert any(path.startswith("/studies/") for _, path in found)
    for number, (method, path) in enumerate(found):
        for headers in (nobody[0], nobody[1 + number % (len(nobody) - 1)]):
            answer = installed.client.request(method, path, headers=headers)
            assert answer.status_code == 401, (method, path, headers)
            assert len(answer.content) < 100


def test_who_has_a_link_to_one_study_gets_nothing_but_it(installed: Installation) -> None:
    link = installed.access.links.to_study("mallory", installed.study)
    visitor = TestClient(installed.client.app, follow_redirects=False)
    assert visitor.get(link.replace(installed.study, UNKNOWN)).status_code == 403
    begun = visitor.get(link)
    assert begun.status_code == 303
    assert "httponly" in begun.headers["set-cookie"].lower()
    assert visitor.get(f"/dicom-web/studies/{installed.study}/metadata").status_code == 200
    assert visitor.get(f"/studies/{installed.study}").status_code == 200
    same = {"Origin": "http://testserver"}
    for method, path in routes_of(installed):
        is_theirs = installed.study in path or path.startswith((*PUBLIC, "/viewer/", "/static/")) or path == "/me"
        if not is_theirs:
            assert visitor.request(method, path, headers=same).status_code == 403, (method, path)
    theirs = f"StudyInstanceUID={installed.study}"
    for query in ("", f"?{theirs},{UNKNOWN}", f"?{theirs}&0020000D=*", f"?{theirs.lower()}&PatientID=*"):
        assert visitor.get(f"/dicom-web/studies{query}").status_code == 403, query
    for path in (f"/dicom-web/studies/{installed.study}/../{UNKNOWN}", f"/dicom-web/studies/{installed.study}%2f..%2f1",
                 f"/dicom-web/studies/{installed.study}/series/../../{UNKNOWN}/series"):  # fmt: skip
        assert visitor.get(path).status_code in {400, 403, 404}, path
    assert visitor.post(f"/dicom-web/studies/{installed.study}", content=b"x", headers=same).status_code == 403


def test_what_is_typed_into_the_search_page_is_in_no_address_and_finds_nothing(installed: Installation) -> None:
    for typed in ("name=Krautinger", "patient=MRN-7781234", f"study={STUDY}", "accession=ACC992817", "name=%00%FF"):
        answer = installed.client.post(
            "/studies",
            content=typed,
            headers=installed.bearer | {"Content-Type": "application/x-www-form-urlencoded"},
        )
        assert answer.status_code == 303
        refuses_to_leak(answer)
        shown = installed.ask("GET", answer.headers["location"])
        assert installed.study not in shown.text
        assert not leaks(all_of(shown), allowed=urllib.parse.unquote_to_bytes(typed)), typed
    for sealed in ("x", "gAAAA" + "A" * 200, "%00"):
        assert installed.ask("GET", f"/studies?q={sealed}").status_code == 410
