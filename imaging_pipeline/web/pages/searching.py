"""The form of the study list: what people type as conditions of a search.

What is typed may name a patient, so it goes into no address: an address holds it sealed under a key that lives as long
as the process.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

from cryptography.fernet import Fernet, InvalidToken

from imaging_pipeline.web.errors import WebError
from imaging_pipeline.web.index import Index, Level, Search
from imaging_pipeline.web.index.attributes import Document
from imaging_pipeline.web.matching import Condition, UnmatchableValue

PER_PAGE: Final = 50
MOST_PAGES: Final = 1_000_000
MOST_CHARACTERS: Final = 200
"""Of one field."""

SEALED_SECONDS: Final = 12 * 3600

FIELDS: Final = ("name", "patient", "accession", "from", "to", "modality", "description", "study")

SHOWN: Final = frozenset({"00081030", "00100030"})
"""Study Description and Patient's Birth Date, beside what every search tells."""


class Sealed:
    """Forms as texts that only this process can read."""

    def __init__(self) -> None:
        self._fernet = Fernet(Fernet.generate_key())

    def seal(self, form: Mapping[str, str]) -> str:
        """A form as a part of an address."""
        return self._fernet.encrypt(json.dumps(form).encode()).decode()

    def open(self, text: str) -> dict[str, str]:
        """The form.

        Raises:
            WebError: 410, it is too old, of an earlier process, or was never one.
        """
        try:
            form: dict[str, str] = json.loads(self._fernet.decrypt(text.encode(), ttl=SEALED_SECONDS))
        except InvalidToken:
            raise WebError(410, "this search is no longer known: search again") from None
        return form


def read(form: Mapping[str, str]) -> dict[str, str]:
    """The fields of a form that are filled in.

    Raises:
        WebError: 400, one is too long.
    """
    found = {name: form[name].strip() for name in FIELDS if form.get(name, "").strip()}
    if any(len(text) > MOST_CHARACTERS for text in found.values()):
        raise WebError(400, f"a field is longer than {MOST_CHARACTERS} characters")
    return found


def find(index: Index, form: Mapping[str, str], number: int) -> tuple[list[Mapping[str, Any]], int]:
    """A page of the studies that match, newest first, and how many there are in all.

    Raises:
        WebError: 400, a field cannot be read.
    """
    search = Search(
        Level.STUDY,
        conditions=tuple(conditions(form)),
        fields=SHOWN,
        is_fuzzy=True,
        limit=PER_PAGE,
        offset=(number - 1) * PER_PAGE,
        counts_rest=True,
    )
    try:
        answer = index.search(search)
    except UnmatchableValue:
        raise WebError(400, "a field cannot be read: dates are YYYY-MM-DD, UIDs have digits and dots") from None
    total = search.offset + len(answer.matches) + answer.remaining
    return [told(match.document) for match in answer.matches], total


def conditions(form: Mapping[str, str]) -> list[Condition]:
    """What a form asks for.

    >>> [(one.path, one.value) for one in conditions({"from": "2026-01-31", "patient": "P7"})]
    [(('00080020',), '20260131-'), (('00100020',), 'P7*')]
    """
    first, last = (form.get(name, "").replace("-", "") for name in ("from", "to"))
    asked = [
        ("00080020", "DA", f"{first}-{last}" if first or last else ""),
        ("00080050", "SH", _beginning(form.get("accession", ""))),
        ("00080061", "CS", form.get("modality", "").upper()),
        ("00081030", "LO", _within(form.get("description", ""))),
        ("00100010", "PN", form.get("name", "")),
        ("00100020", "LO", _beginning(form.get("patient", ""))),
        ("0020000D", "UI", form.get("study", "")),
    ]
    return [Condition((tag,), vr, value) for tag, vr, value in asked if value]


def told(document: Document) -> Mapping[str, Any]:
    """Attributes of a document by tag: the value, several with commas between them, or None.

    Person names are given as they are written alphabetically.
    """
    return defaultdict(lambda: None, {tag: _value(element) for tag, element in document.items()})


def _value(element: Mapping[str, Any]) -> Any:
    values = [value.get("Alphabetic") if isinstance(value, dict) else value for value in element.get("Value") or []]
    return ", ".join(map(str, values)) if len(values) > 1 else next(iter(values), None)


def _beginning(text: str) -> str:
    """What begins so, unless the text has wildcards of its own."""
    return text if not text or "*" in text or "?" in text else f"{text}*"


def _within(text: str) -> str:
    """What holds these words as they are usually written: matching knows upper and lower case (PS3.4 C.2.2.2)."""
    if not text or "*" in text or "?" in text:
        return text
    ways = dict.fromkeys((text, text.lower(), text.upper(), text.capitalize(), text.title()))
    return "\\".join(f"*{way}*" for way in ways)
