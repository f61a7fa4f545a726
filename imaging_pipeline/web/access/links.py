"""Links that open one path, or one study, until a time, to whoever has them.

A link is sealed with HMAC-SHA256 over all it says; another path, zone, user or time needs another seal. It lets in as
the user who made it, to read alone, for as long as that user is let in. Changing the key revokes all links.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.web.access.accounts import Accounts
from imaging_pipeline.web.access.private import derived_key
from imaging_pipeline.web.access.roles import Principal

PARAMETER: Final = "link"
"""Name of the query parameter that carries a link's ticket."""

MAX_DAYS: Final = 31

_DAY_SECONDS: Final = 86_400.0
_PATH, _STUDY = "path", "study"


class SignedLinks:
    """Makes and reads the links of one zone."""

    def __init__(self, accounts: Accounts, zone: str, key: bytes, clock: Callable[[], float] = time.time) -> None:
        self._accounts = accounts
        self._zone = zone
        self._key = key
        self._clock = clock

    def to_path(self, user: str, path: str, days: float = 1.0) -> str:
        """``path``, which may have a query, with the ticket that opens exactly it.

        Raises:
            ConfigurationError: there is no such active user, the days are not allowed, or it is no path.
        """
        parts = urlsplit(path)
        if parts.scheme or parts.netloc or not parts.path.startswith("/") or "%" in parts.path or parts.fragment:
            raise ConfigurationError("a link is made for a path of this service: /… without a host, escapes and #")
        ticket = self._ticket(_PATH, user, _target(parts.path, parts.query), days)
        return f"{path}{'&' if parts.query else '?'}{PARAMETER}={ticket}"

    def to_study(self, user: str, study: str, days: float = 1.0) -> str:
        """The path that begins a session in which one study is seen, and no other.

        Raises:
            ConfigurationError: there is no such active user, or the days are not allowed.
        """
        return f"/link/{self._ticket(_STUDY, user, study, days)}?study={study}"

    def of_path(self, path: str, query: str) -> Principal | None:
        """Who comes with a link to the path they ask for; None: it does not open it."""
        others: list[str] = []
        tickets: list[str] = []
        for part in query.split("&"):
            name, _, value = part.partition("=")
            (tickets if name == PARAMETER else others).append(value if name == PARAMETER else part)
        if len(tickets) != 1:
            return None
        opened = self._opened(_PATH, tickets[0], _target(path, "&".join(others)))
        return self._accounts.as_link(opened[0]) if opened else None

    def of_study(self, ticket: str, study: str) -> tuple[Principal, float] | None:
        """Who comes with a link to a study, and until when (seconds since 1970)."""
        opened = self._opened(_STUDY, ticket, study)
        principal = self._accounts.as_link(opened[0], study) if opened else None
        return (principal, opened[1]) if opened and principal else None

    def _ticket(self, kind: str, user: str, target: str, days: float) -> str:
        if not 0 < days <= MAX_DAYS:
            raise ConfigurationError(f"a link is good for more than 0 and at most {MAX_DAYS} days")
        self._accounts.active(user)
        until = int(self._clock() + days * _DAY_SECONDS)
        name = base64.urlsafe_b64encode(user.encode()).decode().rstrip("=")
        return f"{until}.{name}.{self._seal(kind, user, target, until)}"

    def _opened(self, kind: str, ticket: str, target: str) -> tuple[str, int] | None:
        """User and end of a ticket for a target, if it is one and has not ended."""
        until, _, rest = ticket.partition(".")
        name, _, seal = rest.partition(".")
        if not (until.isascii() and until.isdecimal() and len(until) < 12 and seal.isascii()):
            return None
        try:
            user = base64.urlsafe_b64decode(name + "=" * (-len(name) % 4)).decode()
        except (binascii.Error, ValueError):
            return None
        is_sealed = hmac.compare_digest(seal, self._seal(kind, user, target, int(until)))
        return (user, int(until)) if is_sealed and int(until) > self._clock() else None

    def _seal(self, kind: str, user: str, target: str, until: int) -> str:
        """The seal over all that a link says; lengths keep the parts apart."""
        key = derived_key(self._key, f"links {self._accounts.link_epoch()}")
        parts = [self._zone, kind, user, target, str(until)]
        text = "".join(f"{len(part)}:{part}" for part in parts)
        return hmac.new(key, text.encode("utf-8", "surrogatepass"), "sha256").hexdigest()


def _target(path: str, query: str) -> str:
    return f"{path}?{query}"
