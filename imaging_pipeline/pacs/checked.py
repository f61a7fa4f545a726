"""Reading a YAML mapping key by key; what is wrong is said by entry and key, never by value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.yaml_files import read_yaml

Code = TypeVar("Code", bound=StrEnum)

_SECRET = re.compile(r"secret|passw|^token$|credential", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z0-9_]+")
_TITLE = re.compile(r"[\x21-\x5b\x5d-\x7e]([\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?")
"""An AE title: 1 to 16 characters of the default repertoire without backslash and control characters (PS3.5 6.2)."""


def read_mapping(path: Path) -> Mapping[object, object]:
    """The mapping that a YAML file holds.

    Raises:
        ConfigurationError: it cannot be read, or is no mapping.
    """
    content = read_yaml(path, "the PACS file")
    if not isinstance(content, Mapping):
        raise ConfigurationError("the PACS file must hold a mapping: ae, peers, retrievals, deliveries")
    return content


class Checked:
    """One mapping, being read.

    Args:
        values: what YAML gave.
        who: how messages call it.
    """

    def __init__(self, values: Mapping[object, object], who: str) -> None:
        self._values = values
        self._who = who

    def wrong(self, key: str, allowed: str) -> ConfigurationError:
        """The error to raise when a key's value is not allowed."""
        return ConfigurationError(f"{self._who}: {key} must be {allowed}")

    def refuse_unknown(self, known: set[str]) -> None:
        """Refuse keys nobody reads: a misspelt one would be a setting that silently does nothing."""
        for key in self._values:
            if isinstance(key, str) and key not in known and _SECRET.search(key):
                raise ConfigurationError(
                    f"{self._who}: remove {key!r}: no secret stands in this file; name an environment variable with "
                    "token_variable or user_variable"
                )
            if key not in known:
                raise ConfigurationError(f"{self._who}: unknown key {key!r}; known are {', '.join(sorted(known))}")

    def has(self, key: str) -> bool:
        """Whether the key is there."""
        return self._values.get(key) is not None

    def mapping(self, key: str) -> Checked:
        """The mapping below a key; an absent one is empty."""
        value = self._values.get(key) or {}
        if not isinstance(value, Mapping):
            raise self.wrong(key, "a mapping of keys")
        return Checked(value, f"{self._who}, {key}")

    def entries(self, key: str, kind: str) -> list[Checked]:
        """The mappings of a list, called by their names."""
        value = self._values.get(key) or []
        if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
            raise self.wrong(key, "a list of mappings")
        return [Checked(item, f"{kind} {item.get('name', number)!r} of the PACS file") for number, item in
                enumerate(value, start=1)]  # fmt: skip

    def text(self, key: str, default: str | None = None) -> str:
        """A text; without a default it is required."""
        value = self._values.get(key, default)
        if value is None:
            raise ConfigurationError(f"{self._who}: {key} is missing")
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            raise self.wrong(key, "a text (put it in quotes if YAML takes it for something else)")
        return value

    def optional_text(self, key: str) -> str | None:
        """A text, or None."""
        return self.text(key) if self.has(key) else None

    def name(self, key: str = "name") -> str:
        """A name of letters, digits and underscores."""
        text = self.text(key)
        if not _NAME.fullmatch(text):
            raise self.wrong(key, "letters, digits and underscores (A-Z a-z 0-9 _)")
        return text

    def title(self, key: str, default: str | None = None) -> str:
        """An AE title, without the spaces around it."""
        text = self.text(key, default).strip()
        if not _TITLE.fullmatch(text):
            raise self.wrong(key, "an AE title: 1 to 16 ASCII characters without backslash")
        return text

    def variable(self, key: str) -> str | None:
        """The name of an environment variable, or None."""
        text = self.optional_text(key)
        if text is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
            raise self.wrong(key, "the name of an environment variable, not the secret itself")
        return text

    def url(self, key: str) -> str:
        """An http(s) address without credentials, query and trailing slash."""
        text = self.text(key)
        try:
            parts = urlsplit(text)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc or parts.query:
            raise self.wrong(key, "http(s)://host[:port][/path] without user and password")
        return text.rstrip("/")

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts; an absent one is empty."""
        value = self._values.get(key) or []
        if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
            raise self.wrong(key, "a list of texts")
        return tuple(item.strip() for item in value)

    def flag(self, key: str, *, default: bool) -> bool:
        """True or false."""
        value = self._values.get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def whole(self, key: str, default: int, low: int, high: int) -> int:
        """A whole number between two limits, which are allowed."""
        value = self._values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(key, f"a whole number from {low} to {high}")
        return value

    def optional_whole(self, key: str, low: int, high: int) -> int | None:
        """A whole number between two limits, or None."""
        return self.whole(key, low, low, high) if self.has(key) else None

    def optional_number(self, key: str, low: float, high: float) -> float | None:
        """A number between two limits, or None."""
        value = self._values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self.wrong(key, f"a number from {low:g} to {high:g}")
        return float(value)

    def day(self, key: str) -> date:
        """A date."""
        value = self._values.get(key)
        if not isinstance(value, date):
            raise self.wrong(key, "a date, as 2026-01-31")
        return value

    def choice(self, key: str, allowed: type[Code], default: Code | None = None) -> Code:
        """One of some words."""
        value = self._values.get(key, default)
        try:
            return allowed(str(value))
        except ValueError:
            raise self.wrong(key, " or ".join(allowed)) from None
