"""Logging in at an OpenID provider in a browser: there, back, and what must not be believed on the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from imaging_pipeline.web.access.gate import Access
from imaging_pipeline.web.access.oidc import OidcConfig
from imaging_pipeline.web.access.roles import Role
from imaging_pipeline.web.errors import install_errors
from imaging_pipeline_tests.web.access.issuer import AUDIENCE, Issuer, issuer

__all__ = ["issuer"]

CLIENT = "imaging-research"
ROLES = {"ml": frozenset({Role.RESEARCH}), "radiology": frozenset({Role.CLINICAL})}


def browser(issuer: Issuer, folder: Path, **more: Any) -> TestClient:
    """Somebody in front of the research service, who follows no redirection by themselves."""
    config = OidcConfig(issuer.name, AUDIENCE, roles=ROLES, projects={"ml": frozenset({"lung"})}, client_id=CLIENT)
    access = Access("research", folder / "access", project="lung", oidc=config, **more)
    app = FastAPI()
    install_errors(app)

    @app.get("/studies")
    def studies() -> str:
        return "studies"

    access.install(app)
    app.state.access = access
    return TestClient(app, base_url="https://images.test", follow_redirects=False)


@pytest.fixture
def client(issuer: Issuer, tmp_path: Path) -> Iterator[TestClient]:
    issuer.shown, issuer.secret = ["rsa"], None
    with browser(issuer, tmp_path) as made:
        yield made


def sent(client: TestClient, place: str = "/studies?page=2") -> str:
    """Where the provider's page is."""
    answer = client.get("/login/provider", params={"next": place})
    assert answer.status_code == 303
    assert "httponly" in answer.headers["set-cookie"].lower()
    return str(answer.headers["location"])


def back(client: TestClient, **answer: str) -> httpx.Response:
    return client.get("/login/done", params=answer)


def test_who_logs_in_at_the_provider_is_let_in_and_goes_where_they_wanted(issuer: Issuer, client: TestClient) -> None:
    assert 'href="/login/provider?next=%2Fstudies"' in client.get("/login", params={"next": "/studies"}).text
    address = sent(client)
    asked = parse_qs(urlsplit(address).query)
    assert address.startswith(f"{issuer.name}/authorize?realm=main&")
    assert asked["redirect_uri"] == ["https://images.test/login/done"]
    assert asked["scope"] == ["openid profile"]
    answer = back(client, **issuer.log_in(address, groups=["ml"]))
    assert (answer.status_code, answer.headers["location"]) == (303, "/studies?page=2")
    assert client.get("/studies").json() == "studies"
    who = client.get("/me").json()
    assert (who["name"], who["projects"]) == ("oidc:ann", ["lung"])
    rows = list(client.app.state.access.audit.rows())  # type: ignore[attr-defined]
    assert ("oidc:ann", "login") in {(row["who"], row["action"]) for row in rows}


def test_groups_without_the_zone_or_project_open_nothing(issuer: Issuer, client: TestClient) -> None:
    answer = back(client, **issuer.log_in(sent(client), groups=["radiology"]))
    assert answer.status_code == 403
    assert "your groups open nothing" in answer.text
    assert client.get("/studies").status_code == 401


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": "of another log-in"},
        {"nonce": None},
        {"aud": AUDIENCE},
        {"aud": "another service"},
        {"iss": "https://elsewhere.test"},
        {"exp": 1},
        {"key": "ec", "algorithm": "ES256"},  # a key the provider does not show
    ],
)
def test_a_token_that_is_no_answer_to_this_log_in_opens_nothing(
    issuer: Issuer, client: TestClient, changes: dict[str, Any]
) -> None:
    answer = back(client, **issuer.log_in(sent(client), **{"groups": ["ml"], **changes}))
    assert answer.status_code == 403
    assert client.get("/studies").status_code == 401


def test_an_answer_to_somebody_elses_log_in_opens_nothing(issuer: Issuer, client: TestClient, tmp_path: Path) -> None:
    with browser(issuer, tmp_path / "other") as other:
        theirs = issuer.log_in(sent(other), groups=["ml"])
    mine = issuer.log_in(sent(client), groups=["ml"])
    for answer in (theirs, theirs | {"state": mine["state"]}, mine | {"state": theirs["state"]}, {}, {"error": "no"}):
        assert back(client, **answer).status_code == 403
    client.cookies.clear()
    assert back(client, **mine).status_code == 403, "another browser"
    assert client.get("/studies").status_code == 401


def test_a_code_is_good_once(issuer: Issuer, client: TestClient) -> None:
    answer = issuer.log_in(sent(client), groups=["ml"])
    cookies = dict(client.cookies)
    assert back(client, **answer).status_code == 303
    client.cookies.clear()
    client.cookies.update(cookies)
    assert back(client, **answer).status_code == 403


@pytest.mark.parametrize("place", ["https://evil.test/", "//evil.test", "/\\evil.test", "javascript:alert(1)"])
def test_nobody_is_sent_elsewhere_afterwards(issuer: Issuer, client: TestClient, place: str) -> None:
    answer = back(client, **issuer.log_in(sent(client, place), groups=["ml"]))
    assert answer.headers["location"] == "/"


def test_a_provider_that_wants_a_secret_gets_it_and_no_page_shows_it(issuer: Issuer, tmp_path: Path) -> None:
    issuer.shown, issuer.secret = ["rsa"], "zwetschgenmus"
    try:
        with browser(issuer, tmp_path, oidc_secret="zwetschgenmus") as client:
            address = sent(client)
            assert "zwetschgenmus" not in address + client.get("/login").text
            assert back(client, **issuer.log_in(address, groups=["ml"])).status_code == 303
        with browser(issuer, tmp_path / "wrong", oidc_secret="another") as client:
            assert back(client, **issuer.log_in(sent(client), groups=["ml"])).status_code == 403
    finally:
        issuer.secret = None


def test_a_provider_that_does_not_answer_is_said_to_try_again(tmp_path: Path) -> None:
    away = Issuer()
    away.name = "http://127.0.0.1:9"
    with browser(away, tmp_path) as client:
        assert client.get("/login/provider").status_code == 503
    config = OidcConfig(away.name, AUDIENCE)
    access = Access("research", tmp_path / "none", project="lung", oidc=config)
    app = FastAPI()
    access.install(app)
    with TestClient(app, follow_redirects=False) as without:
        assert "/login/provider" not in without.get("/login").text
        assert without.get("/login/provider").status_code == 404
