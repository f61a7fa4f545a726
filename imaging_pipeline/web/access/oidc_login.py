"""Logging in at an OpenID provider: the browser is sent there and comes back with a code (OpenID Connect Core 3.1).

With proof of possession of the request (PKCE, RFC 7636), so that no secret of the site is needed; where the provider
asks for one it is in the environment. What is under way is in a sealed cookie of the browser: the service keeps nothing
of those who do not come back.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from cryptography.fernet import Fernet, InvalidToken

from imaging_pipeline.web.access.oidc import OpenIdProvider
from imaging_pipeline.web.access.roles import Principal

MINUTES: Final = 10
"""From being sent to the provider to coming back."""

_MAX_CODE: Final = 4_096


@dataclass(frozen=True, slots=True)
class Begun:
    """A log-in under way.

    Attributes:
        address: of the provider, where the browser is sent.
        cookie: value of the cookie by which the browser is known again.
    """

    address: str
    cookie: str


class CodeLogin:
    """Log-ins of one provider. What they seal lives as long as the process.

    Args:
        provider: whose tokens are read.
        client_id: what the provider calls this service.
        scope: what is asked for.
        secret: of this service at the provider; None: it is a public client.
    """

    def __init__(self, provider: OpenIdProvider, client_id: str, scope: str, secret: str | None) -> None:
        self._provider = provider
        self._client_id = client_id
        self._scope = scope
        self._secret = secret
        self._fernet = Fernet(Fernet.generate_key())

    def begin(self, redirect_uri: str, place: str) -> Begun:
        """Send somebody to the provider; it may take seconds.

        Args:
            redirect_uri: of this service, where the provider sends them back; it must be registered there.
            place: where they wanted to go.

        Raises:
            TransientError: the provider does not answer.
        """
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": redirect_uri,
            "scope": self._scope,
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        address = self._provider.address("authorization_endpoint")
        kept = {"state": state, "nonce": nonce, "verifier": verifier, "uri": redirect_uri, "place": place}
        sealed = self._fernet.encrypt(json.dumps(kept).encode()).decode()
        return Begun(f"{address}{'&' if '?' in address else '?'}{urlencode(asked)}", sealed)

    def finish(self, cookie: str, answer: Mapping[str, str]) -> tuple[Principal, str] | None:
        """Who has come back, and where they wanted to go; None: it was no log-in that began here. It may take seconds.

        Args:
            cookie: of the browser.
            answer: what the provider has sent along (``code`` and ``state``).

        Raises:
            TransientError: the provider does not answer.
        """
        try:
            kept: dict[str, str] = json.loads(self._fernet.decrypt(cookie.encode(), ttl=60 * MINUTES))
        except (InvalidToken, UnicodeEncodeError):
            return None
        code = answer.get("code", "")
        is_ours = hmac.compare_digest(answer.get("state", "").encode(), kept["state"].encode())
        if not is_ours or not 0 < len(code) <= _MAX_CODE:
            return None
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": kept["uri"],
            "client_id": self._client_id,
            "code_verifier": kept["verifier"],
        }
        tokens: Mapping[str, Any] = self._provider.redeem(form, self._secret)
        found = self._provider.principal(str(tokens.get("id_token", "")), self._client_id, kept["nonce"])
        return (found[0], kept["place"]) if found else None
