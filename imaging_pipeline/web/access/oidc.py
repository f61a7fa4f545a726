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

from imaging_pipeline.errors import ConfigurationError, TransientError
from imaging_pipeline.pacs.checked import Checked
from imaging_pipeline.web.access.roles import Principal, Role, Way
from imaging_pipeline.yaml_files import read_yaml

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
_KEYS: Final = {
    "issuer", "audience", "name_claim", "role_claim", "roles", "project_claim", "projects", "client_id", "scope",
    "client_secret_variable",
}  # fmt: skip
_SCOPE: Final = "openid profile"


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
        client_id: what the provider calls this service, where browsers are sent to it to log in; None: they are not.
        scope: what is asked for then.
        client_secret_variable: of the environment, with what the provider knows this service by; None: it wants none.
    """

    issuer: str
    audience: str
    name_claim: str = "sub"
    role_claim: str = "groups"
    roles: Mapping[str, frozenset[Role]] = field(default_factory=dict)
    project_claim: str = "groups"
    projects: Mapping[str, frozenset[str]] = field(default_factory=dict)
    client_id: str | None = None
    scope: str = _SCOPE
    client_secret_variable: str | None = None


def load_oidc(path: Path) -> OidcConfig:
    """Read the file named by ``IMAGING_PIPELINE_OIDC``.

    Raises:
        ConfigurationError: naming the key and what is allowed.
    """
    content = read_yaml(path, "the OIDC file")
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
        checked.text("client_id") if "client_id" in content else None,
        checked.text("scope", _SCOPE),
        checked.text("client_secret_variable") if "client_secret_variable" in content else None,
    )


class OpenIdProvider:
    """Reads the tokens of one issuer."""

    def __init__(self, config: OidcConfig, clock: Callable[[], float] = time.time) -> None:
        self._config = config
        self._clock = clock
        self._discovery: Mapping[str, Any] = {}
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._lock = Lock()

    def principal(
        self, token: str, audience: str | None = None, nonce: str | None = None
    ) -> tuple[Principal, float] | None:
        """Who sends a token, and until when they may (seconds since 1970); None: it opens nothing.

        Fetches the issuer's keys where needed, so it may take seconds: call it in a thread.

        Args:
            token: it.
            audience: for whom it must be made; None: the configured one.
            nonce: what it must repeat, when it is the answer to a log-in.

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
            claims = self._claims(token, key, str(header["alg"]), audience or self._config.audience, nonce)
        except jwt.PyJWTError:
            return None
        name = claims.get(self._config.name_claim)
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= _MAX_NAME:
            return None
        roles = _given(claims.get(self._config.role_claim), self._config.roles)
        projects = _given(claims.get(self._config.project_claim), self._config.projects)
        return Principal(f"oidc:{name}", roles, projects, via=Way.OIDC), float(claims["exp"])

    def address(self, name: str) -> str:
        """An address that the provider's discovery document gives, such as ``token_endpoint``.

        Raises:
            TransientError: it cannot be fetched, or names none.
        """
        with self._lock:
            if name not in self._discovery:
                if self._clock() - self._tried_at <= MIN_REFRESH_SECONDS:  # anybody may ask for this, without a token
                    raise TransientError("the OpenID provider could not be asked some seconds ago")
                self._refresh()
            found = self._discovery.get(name)
        if not isinstance(found, str):
            raise TransientError(f"the OpenID provider names no {name}")
        _require_safe(found)
        return found

    def redeem(self, form: Mapping[str, str], secret: str | None) -> Mapping[str, Any]:
        """What the provider gives for a code; nothing where it refuses.

        Args:
            form: of the token request (RFC 6749 4.1.3).
            secret: of this service at the provider.

        Raises:
            TransientError: it does not answer.
        """
        address = self.address("token_endpoint")
        proof = (form["client_id"], secret) if secret else None
        try:
            with httpx.Client(timeout=_TIMEOUT_SECONDS, auth=proof) as client:
                answer = client.post(address, data=dict(form), follow_redirects=False)
                found = answer.json() if answer.status_code == httpx.codes.OK else {}
        except (httpx.HTTPError, ValueError) as error:
            raise TransientError(f"the OpenID provider does not answer ({type(error).__name__})") from None
        return found if isinstance(found, dict) else {}

    def _claims(self, token: str, key: jwt.PyJWK, algorithm: str, audience: str, nonce: str | None) -> dict[str, Any]:
        claims: dict[str, Any] = jwt.decode(
            token,
            key=key,
            algorithms=[algorithm],
            audience=audience,
            issuer=self._config.issuer,
            leeway=_LEEWAY_SECONDS,
            options={"require": ["exp", "iat", "iss", "aud"]},
        )
        if nonce is not None and claims.get("nonce") != nonce:
            raise jwt.InvalidTokenError
        return claims

    def _key(self, key_id: str | None) -> jwt.PyJWK | None:
        """The issuer's key of a name; the only key there is, for tokens that name none."""
        with self._lock:
            now = self._clock()
            is_old = now - self._fetched_at > KEYS_SECONDS
            if (is_old or key_id not in self._keys) and now - self._tried_at > MIN_REFRESH_SECONDS:
                self._refresh()
            elif is_old:
                raise TransientError("the keys of the OpenID provider could not be fetched some seconds ago")
            if key_id is None and len(self._keys) == 1:
                return next(iter(self._keys.values()))
            return self._keys.get(key_id)

    def _refresh(self) -> None:
        self._tried_at = self._clock()
        self._discovery, self._keys = self._fetch()
        self._fetched_at = self._clock()

    def _fetch(self) -> tuple[Mapping[str, Any], dict[str | None, jwt.PyJWK]]:
        """What the issuer says of itself, and its signing keys (OpenID Connect Discovery 1.0, section 4; RFC 7517)."""
        try:
            with httpx.Client(timeout=_TIMEOUT_SECONDS, follow_redirects=False) as client:
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
        return discovery, {key.key_id: key for key in found.keys if key.public_key_use in {None, "sig"}}


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
