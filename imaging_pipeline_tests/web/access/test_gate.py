"""The gate in front of an application: who gets through, by which way, and what the log says of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.staticfiles import StaticFiles

from imaging_pipeline.errors import TransientError
from imaging_pipeline.web.access.audit import AuditLog, Event
from imaging_pipeline.web.access.gate import Access
from imaging_pipeline.web.access.middleware import AnswerBroken
from imaging_pipeline.web.access.recorder import WINDOW_SECONDS, Recorder
from imaging_pipeline.web.access.roles import Role
from imaging_pipeline_tests.web.access.conftest import token_of

STUDY, OTHER = "2.25.1", "2.25.2"
SECRET = "DOE^JANE"
ORIGIN = {"Origin": "http://testserver"}


def application(access: Access, folder: Path) -> FastAPI:
    """Routes as DICOMweb has them; none of them asks who is there unless it says so."""
    dicomweb, app = APIRouter(), FastAPI()

    @dicomweb.get("/studies")
    def search() -> list[str]:
        return [STUDY, OTHER]

    @dicomweb.get("/studies/{study}")
    def study_of(study: str) -> dict[str, str]:
        return {"study": study}

    @dicomweb.get("/studies/{study}/series/{series}/instances/{instance}/frames/{frames}")
    def frame(study: str, series: str, instance: str, frames: str) -> StreamingResponse:
        return StreamingResponse(iter([b"x" * 50] * 2))

    @dicomweb.post("/studies")
    def store(request: Request, body: dict[str, str]) -> str:
        return access.writer(request).name

    @dicomweb.delete("/studies/{study}")
    def forgotten(study: str) -> str:
        return "a route that forgot to ask for a writer"

    @dicomweb.get("/broken")
    def broken() -> str:
        raise ValueError(SECRET)

    @dicomweb.get("/half")
    def half() -> StreamingResponse:
        def parts() -> Iterator[bytes]:
            yield b"begun"
            raise ValueError(SECRET)

        return StreamingResponse(parts())

    app.include_router(dicomweb, prefix="/dicom-web")
    folder.mkdir()
    (folder / "app.js").write_text("viewer")
    app.mount("/viewer/", StaticFiles(directory=folder))
    access.install(app, knows=lambda study, series, instance: study in {STUDY, OTHER} and series != "1.2.original")
    return app


@pytest.fixture
def client(access: Access, tmp_path: Path) -> Iterator[TestClient]:
    made = TestClient(application(access, tmp_path / "viewer"), raise_server_exceptions=False, follow_redirects=False)
    with made:
        yield made


def bearer(access: Access, user: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token_of(access, user)}"}


def log_in(client: TestClient, access: Access, user: str, place: str = "/") -> int:
    """By the page, as a browser does."""
    form = {"token": token_of(access, user), "next": place}
    return client.post("/login", data=form, headers=ORIGIN).status_code


def rows(access: Access) -> list[dict[str, object]]:
    return list(access.audit.rows())


ALL_PATHS = ("/", "/dicom-web/studies", f"/dicom-web/studies/{STUDY}", "/viewer/app.js", "/openapi.json",
             "/me", "/audit", "/no/such", "//login", "/login/", "/link", "/health/../dicom-web", "/LOGIN")  # fmt: skip


def test_nobody_unknown_gets_past_the_gate_on_any_path(client: TestClient) -> None:
    for path in ALL_PATHS:
        for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Basic eDp5"}, {"Authorization": ""}):
            answer = client.get(path, headers=headers)
            assert (answer.status_code, answer.json()) == (401, {"detail": "unknown"}), path
            assert answer.headers["www-authenticate"] == "Bearer"
    assert client.post("/dicom-web/studies", json={}).status_code == 401
    assert client.get("/health").json() == {"status": "ok"}


@pytest.mark.parametrize("user", ["stranger", "clinician"])
def test_a_token_without_the_project_or_role_of_the_zone_is_refused(
    client: TestClient, access: Access, user: str
) -> None:
    for path in (f"/dicom-web/studies/{STUDY}", "/dicom-web/studies", "/viewer/app.js", "/me"):
        answer = client.get(path, headers=bearer(access, user))
        assert (answer.status_code, answer.json()) == (403, {"detail": "not_granted"})


def test_a_reader_reads_and_an_annotator_stores_under_their_own_name(client: TestClient, access: Access) -> None:
    reader, annotator = bearer(access, "reader"), bearer(access, "annotator")
    assert client.get("/dicom-web/studies", headers=reader).json() == [STUDY, OTHER]
    assert client.get("/me", headers=reader).json()["may_write"] is False
    assert client.post("/dicom-web/studies", json={}, headers=annotator).json() == "annotator"
    assert client.post("/dicom-web/studies", json={}, headers=reader).status_code == 403
    assert client.delete(f"/dicom-web/studies/{STUDY}", headers=reader).status_code == 403, "it forgot to ask"


def test_the_audit_log_is_for_operators_who_see_nothing_else(client: TestClient, access: Access) -> None:
    operator = bearer(access, "operator")
    client.get("/dicom-web/studies", headers=bearer(access, "reader"))
    found = client.get("/audit", headers=operator).json()
    assert [(row["who"], row["action"]) for row in found] == [("reader", "search")]
    assert client.get("/dicom-web/studies", headers=operator).status_code == 403
    assert client.get("/audit", headers=bearer(access, "reader")).status_code == 403


def test_a_person_is_sent_to_log_in_and_comes_back_with_a_session(client: TestClient, access: Access) -> None:
    wanted = "/dicom-web/studies?limit=2&x=%2F"
    sent = client.get(wanted, headers={"Accept": "text/html"})
    assert sent.status_code == 303
    page = client.get(sent.headers["location"])
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert 'value="/dicom-web/studies?limit=2&amp;x=%2F"' in page.text
    back = client.post("/login", data={"token": token_of(access, "reader"), "next": wanted}, headers=ORIGIN)
    assert (back.status_code, back.headers["location"]) == (303, wanted)
    cookie = back.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert client.get(wanted).status_code == 200
    assert client.post("/logout", headers=ORIGIN).status_code == 303
    assert client.get(wanted).status_code == 401


def test_a_session_over_tls_is_for_tls_alone(access: Access, tmp_path: Path) -> None:
    client = TestClient(application(access, tmp_path / "viewer"), base_url="https://testserver", follow_redirects=False)
    form = {"token": token_of(access, "reader")}
    answer = client.post("/login", data=form, headers={"Origin": "https://testserver"})
    assert "secure" in answer.headers["set-cookie"].lower()


@pytest.mark.parametrize(
    "place", ["https://evil", "//evil", "/\\evil", "evil", "/a\r\nSet-Cookie: x=1", "javascript:1"]
)
def test_logging_in_leads_nowhere_else(client: TestClient, access: Access, place: str) -> None:
    answer = client.post("/login", data={"token": token_of(access, "reader"), "next": place}, headers=ORIGIN)
    assert answer.headers["location"] == "/"


def test_what_a_page_shows_of_the_address_is_escaped(client: TestClient) -> None:
    assert "<script>" not in client.get("/login", params={"next": '/"><script>alert(1)</script>'}).text


def test_a_wrong_token_begins_no_session(client: TestClient, access: Access) -> None:
    for token in ("", "x", "ipt_", token_of(access, "clinician")):
        answer = client.post("/login", data={"token": token}, headers=ORIGIN)
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers
    assert client.post("/login", content=b"token=" + b"x" * 40_000, headers=ORIGIN).status_code == 413


def test_another_site_can_neither_log_somebody_in_nor_use_their_session(client: TestClient, access: Access) -> None:
    evil = (
        {"Origin": "https://evil"},
        {"Origin": "null"},
        {},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://testserver.evil"},
    )
    for headers in evil:
        assert client.post("/login", data={"token": token_of(access, "annotator")}, headers=headers).status_code == 403
    assert log_in(client, access, "annotator") == 303
    for headers in evil:
        answer = client.post("/dicom-web/studies", json={}, headers=headers)
        assert (answer.status_code, answer.json()) == (403, {"detail": "other_origin"})
        assert client.post("/logout", headers=headers).status_code == 403
    assert client.post("/dicom-web/studies", json={}, headers=ORIGIN).json() == "annotator"
    assert client.post("/dicom-web/studies", json={}, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200


def test_a_wrong_token_is_not_rescued_by_a_session(client: TestClient, access: Access) -> None:
    assert log_in(client, access, "reader") == 303
    assert client.get("/dicom-web/studies", headers={"Authorization": "Bearer x"}).status_code == 401
    assert client.get("/dicom-web/studies?link=x").status_code == 401


def test_a_link_opens_its_path_and_no_other(client: TestClient, access: Access) -> None:
    link = access.links.to_path("annotator", f"/dicom-web/studies/{STUDY}")
    assert client.get(link).json() == {"study": STUDY}
    assert client.get(link.replace(STUDY, OTHER)).status_code == 401
    assert client.delete(link).status_code == 403
    assert rows(access)[0]["via"] == "link"


def test_a_link_to_a_study_shows_that_study_and_the_viewer_alone(client: TestClient, access: Access) -> None:
    answer = client.get(access.links.to_study("annotator", STUDY))
    assert (answer.status_code, answer.headers["location"]) == (303, f"/studies/{STUDY}")
    for path in (
        f"/dicom-web/studies/{STUDY}", f"/dicom-web/studies/{STUDY}/series/1/instances/1/frames/1", "/viewer/app.js",
        f"/dicom-web/studies?StudyInstanceUID={STUDY}", f"/dicom-web/studies?0020000D={STUDY}&limit=1&includefield=all",
    ):  # fmt: skip
        assert client.get(path).status_code == 200, path
    for path in (
        "/dicom-web/studies", f"/dicom-web/studies/{OTHER}", f"/dicom-web/studies/{STUDY}/../{OTHER}", "/audit",
        f"/dicom-web/studies?StudyInstanceUID={STUDY}&0020000D={OTHER}", "/dicom-web/studies?StudyInstanceUID=*",
        f"/dicom-web/studies?StudyInstanceUID={STUDY},{OTHER}",
        f"/dicom-web/studies?StudyInstanceUID={STUDY}&PatientID=*",
        f"/dicom-web/studies?StudyInstanceUID={STUDY}&StudyInstanceUID={STUDY}", "/openapi.json",
        f"/dicom-web/studies%2F{OTHER}", f"/dicom-web/studies/{STUDY}%2F..%2F{OTHER}%00",
    ):  # fmt: skip
        assert client.get(path).status_code in {401, 403, 404}, path
    assert client.post("/dicom-web/studies", json={}, headers=ORIGIN).status_code == 403
    assert client.get("/link/1.a.b", params={"study": OTHER}).status_code == 403


def test_every_answer_is_kept_private_and_unsniffed(client: TestClient, access: Access) -> None:
    answer = client.get("/dicom-web/studies", headers=bearer(access, "reader"))
    found = {name: answer.headers[name] for name in ("cache-control", "x-content-type-options", "referrer-policy")}
    assert found == {"cache-control": "private", "x-content-type-options": "nosniff", "referrer-policy": "same-origin"}


def test_an_error_gives_away_nothing_in_answer_or_log(
    client: TestClient, access: Access, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        answer = client.get("/dicom-web/broken", headers=bearer(access, "reader"))
        with pytest.raises(AnswerBroken) as broken:
            TestClient(client.app).get("/dicom-web/half", headers=bearer(access, "reader"))
    assert answer.status_code == 500
    assert SECRET not in answer.text + caplog.text + str(broken.value)
    assert "ValueError at test_gate.py:" in caplog.text
    assert rows(access)[0]["outcome"] == "failed"


def test_every_view_is_in_the_log_with_who_what_and_how_it_ended(client: TestClient, access: Access) -> None:
    frames = f"/dicom-web/studies/{STUDY}/series/1.2/instances/1.2.3/frames"
    reader = bearer(access, "reader")
    for number in (1, 2, 3):
        assert client.get(f"{frames}/{number}", headers=reader).status_code == 200
    client.get("/dicom-web/studies?PatientName=Doe", headers=reader)
    client.post("/dicom-web/studies", json={"a": "b"}, headers=bearer(access, "annotator"))
    client.get(f"/dicom-web/studies/{STUDY}")
    client.get("/no/such", headers=reader)
    client.get("/viewer/app.js", headers=reader)
    client.get("/login")
    client.__exit__()
    assert access.audit.verify().is_sound
    seen = [
        tuple(
            row[name]
            for name in ("who", "via", "action", "study", "instance", "outcome", "requests", "bytes", "detail")
        )
        for row in rows(access)
    ]
    assert seen == [
        ("reader", "token", "view", STUDY, "1.2.3", "ok", 1, 0, "200"),
        ("reader", "token", "search", "", "", "ok", 1, 0, "200"),
        ("annotator", "token", "store", "", "", "ok", 1, 9, "200"),
        ("", "", "view", "", "", "denied", 1, 0, "unknown"),
        ("reader", "token", "view", "", "", "refused", 1, 0, "404"),
        ("reader", "token", "view", STUDY, "", "ok", 2, 300, "summary"),
        ("reader", "token", "search", "", "", "ok", 0, 19, "summary"),
        ("", "", "view", "", "", "denied", 0, 20, "summary"),
        ("reader", "token", "view", "", "", "refused", 0, 22, "summary"),
    ]
    resource = "/dicom-web/studies/{study}/series/{series}/instances/{instance}/frames/{frames}"
    assert rows(access)[0]["resource"] == resource


def test_on_the_research_side_the_log_keeps_no_uid_that_is_not_served_there(client: TestClient, access: Access) -> None:
    reader = bearer(access, "reader")
    for path in ("studies/1.2.original", f"studies/{STUDY}/series/1.2.original/instances/1/frames/1", "studies/Doe",
                 "1.2.original", "studies?PatientName=1.2.original"):  # fmt: skip
        client.get(f"/dicom-web/{path}", headers=reader)
        client.get(f"/dicom-web/{path}")
    client.__exit__()
    text = str(rows(access))
    assert "original" not in text
    assert "Doe" not in text


def test_on_the_clinical_side_the_log_says_which_study_was_tried(tmp_path: Path) -> None:
    clinical = Access("clinical", tmp_path / "access")
    clinical.accounts.add_user("student", {Role.RESEARCH})
    client = TestClient(application(clinical, tmp_path / "viewer"))
    client.get("/dicom-web/studies/1.2.3", headers=bearer(clinical, "student"))
    (row,) = rows(clinical)
    assert (row["who"], row["study"], row["outcome"], row["detail"]) == ("student", "1.2.3", "denied", "not_granted")


def test_logging_in_and_out_is_in_the_log(client: TestClient, access: Access) -> None:
    client.post("/login", data={"token": "wrong"}, headers=ORIGIN)
    log_in(client, access, "reader")
    client.post("/logout", headers=ORIGIN)
    found = [(row["action"], row["who"], row["outcome"]) for row in rows(access)]
    assert found == [("login", "", "denied"), ("login", "reader", "ok"), ("logout", "reader", "ok")]


def test_nothing_is_answered_that_cannot_be_logged(
    client: TestClient, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = bearer(access, "reader")

    def full(*_: object) -> None:
        raise TransientError("the audit log cannot be written")

    with monkeypatch.context() as patch:
        patch.setattr(access.audit, "append", full)
        for path in ("/dicom-web/studies", f"/dicom-web/studies/{STUDY}", "/dicom-web/broken"):
            answer = client.get(path, headers=reader)
            assert answer.status_code == 503, path
            assert STUDY not in answer.text
    assert client.get("/dicom-web/studies", headers=reader).status_code == 200


def test_a_row_is_on_the_disk_before_the_first_byte_leaves(access: Access, tmp_path: Path) -> None:
    app = application(access, tmp_path / "viewer")
    seen: list[tuple[str, int]] = []
    token = bearer(access, "reader")["Authorization"].encode()
    scope = {
        "type": "http", "method": "GET", "path": f"/dicom-web/studies/{STUDY}", "raw_path": b"", "query_string": b"",
        "headers": [(b"authorization", token)], "http_version": "1.1", "scheme": "http", "server": ("x", 80),
        "client": None, "root_path": "",
    }  # fmt: skip

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, object]) -> None:  # type: ignore[explicit-any,unused-ignore]
        seen.append((str(message["type"]), access.audit.head().row))

    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    assert seen[0] == ("http.response.start", 1)


class Counting:
    """An audit log that counts how often the disk is waited for."""

    def __init__(self, log: AuditLog) -> None:
        self.log, self.writes = log, 0

    def append(self, *events: Event) -> None:
        self.writes += 1
        self.log.append(*events)


def test_a_minute_of_the_same_becomes_two_rows_and_many_at_once_one_write(access: Access) -> None:
    log, now = Counting(access.audit), [0.0]
    recorder = Recorder(log, clock=lambda: now[0])  # type: ignore[arg-type]

    async def minute() -> None:
        for number in range(100):
            tally = await recorder.count("frames", lambda: Event(action="view"))
            tally.bytes += number
        now[0] += WINDOW_SECONDS + 1
        await recorder.count("other", lambda: Event(action="search"))
        await asyncio.gather(*(recorder.write(Event(action="store")) for _ in range(20)))

    asyncio.run(minute())
    found = [(row["action"], row["requests"], row["bytes"]) for row in rows(access)]
    assert found[:3] == [("view", 1, 0), ("view", 99, 4950), ("search", 1, 0)]
    assert len(found) == 23
    assert log.writes <= 5


def test_the_cookie_has_one_name(client: TestClient, access: Access) -> None:
    log_in(client, access, "reader")
    assert list(client.cookies) == ["imaging_session_research"]
    assert urlsplit(str(client.base_url)).hostname == "testserver"
