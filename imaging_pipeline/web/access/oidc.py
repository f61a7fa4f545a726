"""Tokens of an OpenID provider: signed statements of who somebody is, read as roles and projects of this service.

Checks what RFC 9068 and RFC 7519 ask for: signature by a key of the issuer (never a shared secret), issuer, audience,
expiry. Roles follow from a claim by the site's own table; a claim that is not in it gives nothing.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import httpx
import jwt
import yaml

from imaging_pipeline.errors import ConfigurationError, TransientError
from imaging_pipeline.pacs.checked import Checked
from imaging_pipeline.web.access.roles import Principal, Role, Way

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
"""Signatures with a private key; a shared secret (HS256) or no signature is never accepted."""

KEYS_SECONDS: Final = 600.0
"""How long the issuer's keys are kept; a key that is taken away there is believed for so long at most."""

MIN_REFRESH_SECONDS: Final = 10.0
"""A token that names an unknown key makes the keys be fetched again, not more often than this; nor is an issuer that
does not answer asked more often."""

Value = TypeVar("Value", bound=str)

_TIMEOUT_SECONDS: Final = 5.0
_LEEWAY_SECONDS: Final = 30.0
_MAX_NAME: Final = 100
_MAX_TOKEN: Final = 16_384
_KEYS: Final = {"issuer", "audience", "name_claim", "role_claim", "roles", "project_claim", "projects"}


@dataclass(frozen=True, slots=True)
class OidcConfig:
    """What the site says about its OpenID provider.

    Attributes:
        issuer: its address, as in the claim ``iss``.
        audience: this service, as in the claim ``aud``.
        name_claim: claim with the name for the audit log.
        role_claim: claim with one or more texts that ``roles`` knows.
        roles: roles for each such text.
        project_claim: claim with one or more texts that ``projects`` knows.
        projects: research projects for each such text.
    """

    issuer: str
    audience: str
    name_claim: str = "sub"
    role_claim: str = "groups"
    roles: Mapping[str, frozenset[Role]] = field(default_factory=dict)
    project_claim: str = "groups"
    projects: Mapping[str, frozenset[str]] = field(default_factory=dict)


def load_oidc(path: Path) -> OidcConfig:
    """Read the file named by ``IMAGING_PIPELINE_OIDC``.

    Raises:
        ConfigurationError: naming the key and what is allowed.
    """
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"the OIDC file cannot be read as YAML ({type(error).__name__})") from None
    if not isinstance(content, Mapping):
        raise ConfigurationError(f"the OIDC file must hold a mapping of {', '.join(sorted(_KEYS))}")
    checked = Checked(content, "the OIDC file")
    checked.refuse_unknown(_KEYS)
    issuer = checked.text("issuer").strip()
    _require_safe(issuer)
    try:
        roles = {name: frozenset(map(Role, texts)) for name, texts in _table(content.get("roles"), "roles").items()}
    except ValueError:
        raise checked.wrong("roles", f"a mapping of texts to lists of {', '.join(Role)}") from None
    return OidcConfig(
        issuer,
        checked.text("audience"),
        checked.text("name_claim", "sub"),
        checked.text("role_claim", "groups"),
        roles,
        checked.text("project_claim", "groups"),
        _table(content.get("projects"), "projects"),
    )


class OpenIdProvider:
    """Reads the tokens of one issuer."""

    def __init__(self, config: OidcConfig, clock: Callable[[], float] = time.time) -> None:
        self._config = config
        self._clock = clock
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._lock = Lock()

    def principal(self, token: str) -> tuple[Principal, float] | None:
        """Who sends a token, and until when they may (seconds since 1970); None: it opens nothing.

        Fetches the issuer's keys where needed, so it may take seconds: call it in a thread.

        Raises:
            TransientError: the issuer's keys are needed and cannot be fetched.
        """
        if len(token) > _MAX_TOKEN:
            return None
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS:
                return None
            key = self._key(header.get("kid"))
            if key is None or key.algorithm_name not in {header["alg"], None}:
                return None
            claims = self._claims(token, key, str(header["alg"]))
        except jwt.PyJWTError:
            return None
        name = claims.get(self._config.name_claim)
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= _MAX_NAME:
            return None
        roles = _given(claims.get(self._config.role_claim), self._config.roles)
        projects = _given(claims.get(self._config.project_claim), self._config.projects)
        return Principal(f"oidc:{name}", roles, projects, via=Way.OIDC), float(claims["exp"])

    def _claims(self, token: str, key: jwt.PyJWK, algorithm: str) -> dict[str, Any]:
        claims: dict[str, Any] = jwt.decode(
            token,
            key=key,
            algorithms=[algorithm],
            audience=self._config.audience,
            issuer=self._config.issuer,
            leeway=_LEEWAY_SECONDS,
            options={"require": ["exp", "iat", "iss", "aud"]},
        )
        return claims

    def _key(self, key_id: str | None) -> jwt.PyJWK | None:
        """The issuer's key of a name; the only key there is, for tokens that name none."""
        with self._lock:
            now = self._clock()
            is_old = now - self._fetched_at > KEYS_SECONDS
            if (is_old or key_id not in self._keys) and now - self._tried_at > MIN_REFRESH_SECONDS:
                self._tried_at = now
                self._keys = self._fetch()
                self._fetched_at = self._clock()
            elif is_old:
                raise TransientError("the keys of the OpenID provider could not be fetched some seconds ago")
            if key_id is None and len(self._keys) == 1:
                return next(iter(self._keys.values()))
            return self._keys.get(key_id)

    def _fetch(self) -> dict[str | None, jwt.PyJWK]:
        """The issuer's signing keys (OpenID Connect Discovery 1.0, section 4; RFC 7517)."""
        try:
            with httpx.Client(timeout=_TIMEOUT_SECONDS, follow_redirects=False, trust_env=False) as client:
                place = f"{self._config.issuer.rstrip('/')}/.well-known/openid-configuration"
                discovery = client.get(place).raise_for_status().json()
                if discovery.get("issuer") != self._config.issuer:
                    raise ConfigurationError(
                        "the OpenID provider calls itself otherwise than the OIDC file: mend issuer"
                    )
                keys = discovery["jwks_uri"]
                _require_safe(keys)
                found = jwt.PyJWKSet.from_dict(client.get(keys).raise_for_status().json())
        except (httpx.HTTPError, jwt.PyJWTError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise TransientError(
                f"the keys of the OpenID provider cannot be fetched ({type(error).__name__})"
            ) from None
        return {key.key_id: key for key in found.keys if key.public_key_use in {None, "sig"}}


def _require_safe(address: str) -> None:
    """Refuse addresses over which anyone between could sign: http, but to this machine itself."""
    parts = urlsplit(address)
    try:
        is_here = parts.hostname == "localhost" or ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        is_here = False
    if not parts.hostname or parts.scheme not in {"https", "http"} or (parts.scheme == "http" and not is_here):
        raise ConfigurationError("the OpenID provider and its keys must be at https://… addresses")


def _table(value: object, key: str) -> dict[str, frozenset[str]]:
    """A mapping of texts to lists of texts."""
    wrong = ConfigurationError(f"the OIDC file: {key} must be a mapping of texts to lists of texts")
    if not isinstance(value or {}, Mapping):
        raise wrong
    table: dict[str, frozenset[str]] = {}
    for name, texts in (value or {}).items():  # type: ignore[attr-defined]
        if not isinstance(name, str) or not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise wrong
        table[name] = frozenset(texts)
    return table


def _given(claim: object, table: Mapping[str, frozenset[Value]]) -> frozenset[Value]:
    """What the table gives for one text or a list of them."""
    texts = [claim] if isinstance(claim, str) else claim if isinstance(claim, list) else []
    return frozenset().union(*(table.get(text, frozenset()) for text in texts if isinstance(text, str)))
