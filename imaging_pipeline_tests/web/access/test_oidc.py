"""Tokens of an OpenID provider: a small real one over loopback, its keys, and what must not be believed."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from imaging_pipeline.errors import ConfigurationError, TransientError
from imaging_pipeline.web.access.oidc import OidcConfig, OpenIdProvider, load_oidc
from imaging_pipeline.web.access.roles import Role, Way
from imaging_pipeline_tests.web.access.issuer import AUDIENCE, Issuer, issuer

__all__ = ["issuer"]


@pytest.fixture
def provider(issuer: Issuer) -> OpenIdProvider:
    issuer.shown, issuer.asked = ["rsa"], 0
    roles = {"radiology": frozenset({Role.CLINICAL, Role.ANNOTATOR}), "ml": frozenset({Role.RESEARCH})}
    return OpenIdProvider(OidcConfig(issuer.name, AUDIENCE, roles=roles, projects={"ml": frozenset({"lung"})}))


def test_a_token_of_the_issuer_is_a_user_with_the_roles_of_its_groups(issuer: Issuer, provider: OpenIdProvider) -> None:
    found = provider.principal(issuer.token(groups=["radiology", "golf"]))
    assert found is not None
    principal, until = found
    assert (principal.name, principal.via, principal.projects) == ("oidc:ann", Way.OIDC, frozenset())
    assert principal.roles == {Role.CLINICAL, Role.ANNOTATOR}
    assert 290 < until - time.time() <= 300
    researcher = provider.principal(issuer.token(groups="ml"))
    assert researcher is not None
    assert (researcher[0].roles, researcher[0].projects) == ({Role.RESEARCH}, {"lung"})


@pytest.mark.parametrize("groups", [None, [], ["golf"], 7, [["ml"]], {"ml": 1}, "Radiology"])
def test_groups_that_the_site_does_not_name_give_no_role(
    issuer: Issuer, provider: OpenIdProvider, groups: object
) -> None:
    found = provider.principal(issuer.token(groups=groups))
    assert found is not None
    assert not found[0].roles


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "elsewhere"},
        {"aud": None},
        {"iss": "http://127.0.0.1:1"},
        {"exp": 1},
        {"exp": None},
        {"iat": None},
        {"nbf": 4_000_000_000},
        {"sub": None},
        {"sub": ""},
        {"sub": "a\nb"},
        {"sub": "a" * 101},
        {"groups": ["x" * 20_000]},
    ],
)
def test_a_token_for_others_out_of_date_or_without_a_name_opens_nothing(
    issuer: Issuer, provider: OpenIdProvider, changes: dict[str, Any]
) -> None:
    assert provider.principal(issuer.token(**changes)) is None


def test_a_token_signed_otherwise_opens_nothing(issuer: Issuer, provider: OpenIdProvider) -> None:
    good = issuer.token()
    head, body, signature = good.split(".")
    claims = jwt.decode(good, options={"verify_signature": False})
    public = issuer.keys["rsa"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    stranger = jwt.encode(claims, rsa.generate_private_key(65537, 2048), "RS256", headers={"kid": "rsa"})
    unsigned = jwt.encode(claims, None, "none", headers={"kid": "rsa"})
    confused = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"rsa"}').rstrip(b"=").decode()
    import hashlib
    import hmac

    mac = hmac.new(public, f"{confused}.{body}".encode(), hashlib.sha256).digest()
    shared = f"{confused}.{body}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
    raised = claims | {"groups": ["ml", "radiology"]}
    changed = base64.urlsafe_b64encode(json.dumps(raised).encode()).rstrip(b"=").decode()
    assert provider.principal(good) is not None
    for wrong in (stranger, unsigned, shared, f"{head}.{changed}.{signature}", f"{head}.{body}.", "a.b.c", "", "é"):
        assert provider.principal(wrong) is None


def test_keys_are_kept_and_fetched_again_for_a_new_one_but_not_for_every_stranger(issuer: Issuer) -> None:
    now = [time.time()]
    provider = OpenIdProvider(OidcConfig(issuer.name, AUDIENCE), clock=lambda: now[0])
    issuer.shown, issuer.asked = ["rsa"], 0
    for _ in range(5):
        assert provider.principal(issuer.token()) is not None
    assert issuer.asked == 1
    issuer.shown = ["rsa", "ec"]
    for _ in range(5):
        assert provider.principal(issuer.token("ec", "ES256")) is None
        assert provider.principal(issuer.token(headers={"kid": "no such key"})) is None
    assert issuer.asked == 1, "tokens of strangers make no load on the issuer"
    now[0] += 11
    assert provider.principal(issuer.token("ec", "ES256")) is not None
    assert issuer.asked == 2
    issuer.shown = ["ec"]
    now[0] += 601
    assert provider.principal(issuer.token()) is None, "a key that the issuer took away"


def test_an_issuer_out_of_reach_or_of_another_name_is_said(issuer: Issuer) -> None:
    gone = OpenIdProvider(OidcConfig("http://127.0.0.1:1", AUDIENCE))
    with pytest.raises(TransientError, match="cannot be fetched"):
        gone.principal(issuer.token())
    renamed = OpenIdProvider(OidcConfig(f"{issuer.name}/realm", AUDIENCE))
    with pytest.raises(ConfigurationError, match="mend issuer"):
        renamed.principal(issuer.token())


def test_the_file_says_who_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "oidc.yaml"
    path.write_text(
        "issuer: https://id.hospital.example/realms/main\naudience: imaging\nname_claim: preferred_username\n"
        "roles:\n  radiology: [clinical, annotator]\nprojects:\n  ml: [lung]\n"
    )
    config = load_oidc(path)
    assert config.roles == {"radiology": {Role.CLINICAL, Role.ANNOTATOR}}
    assert (config.name_claim, config.projects) == ("preferred_username", {"ml": {"lung"}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mapping"),
        ("[1]", "mapping"),
        ("issuer: x: y", "YAML"),
        ("audience: a", "issuer is missing"),
        ("issuer: http://id.example\naudience: a", "https://"),
        ("issuer: ftp://id.example\naudience: a", "https://"),
        ("issuer: https://id.example", "audience is missing"),
        ("issuer: https://id.example\naudience: a\nclient_secret: x", "remove 'client_secret'"),
        ("issuer: https://id.example\naudience: a\nrole: x", "unknown key 'role'"),
        ("issuer: https://id.example\naudience: a\nroles: {ml: [king]}", "clinical, research"),
        ("issuer: https://id.example\naudience: a\nroles: {ml: research}", "lists of texts"),
        ("issuer: https://id.example\naudience: a\nprojects: [lung]", "lists of texts"),
    ],
)
def test_a_wrong_file_is_refused_with_what_to_mend(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "oidc.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        load_oidc(path)


def test_a_provider_that_is_away_is_not_asked_for_its_addresses_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, asked = [1000.0], list[float]()
    provider = OpenIdProvider(OidcConfig("https://id.test", AUDIENCE), lambda: now[0])

    def away() -> None:
        asked.append(now[0])
        raise TransientError("away")

    monkeypatch.setattr(provider, "_fetch", away)
    for second in (0, 1, 9, 11, 12):
        now[0] = 1000.0 + second
        with pytest.raises(TransientError):
            provider.address("token_endpoint")
    assert asked == [1000.0, 1011.0]
