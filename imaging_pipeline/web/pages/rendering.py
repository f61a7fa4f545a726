"""Pages from templates. What comes from an object is escaped, and its control characters are made visible.

Must not contain queries.
"""

from __future__ import annotations

import datetime as dt
import functools
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pydicom.uid import UID
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from imaging_pipeline.errors import PoisonInput, TransientError
from imaging_pipeline.web.addresses import study_path, viewer_path
from imaging_pipeline.web.errors import RETRY_SECONDS, WebError
from imaging_pipeline.web.qido import ROOT
from imaging_pipeline.web.wado.answers import web_error

STYLE: Final = "/static/pages.css"

POLICY: Final = (
    "default-src 'none'; img-src 'self'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""No script at all, whatever an object holds."""

HEADERS: Final = {"content-security-policy": POLICY, "cache-control": "private, no-store"}

_DATE: Final = re.compile(r"(\d{4})(\d{2})(\d{2})").fullmatch
_TIME: Final = re.compile(r"(\d{2})(\d{2})(\d{2})?(\.\d+)?").fullmatch
_UNITS: Final = ("bytes", "kB", "MB", "GB", "TB")
_CONTROL_PICTURES: Final = 0x2400
"""Unicode's pictures of the first 32 control characters begin here."""

Page = Callable[[Request], Response]


def plain(value: object) -> object:
    """A value as it goes into a page: nothing for None, and no character that acts instead of being seen.

    >>> plain("a" + chr(0) + "b" + chr(0x202E) + "c")
    'a␀b⟨U+202E⟩c'
    """
    if value is None:
        return ""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return "".join(map(_seen, value)) if not value.isprintable() else value


@functools.cache
def _seen(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}:
        return character
    code = ord(character)
    return chr(_CONTROL_PICTURES + code) if code < ord(" ") else f"⟨U+{code:04X}⟩"


def series_path(study: str, series: str) -> str:
    """Address of a series' page."""
    return f"{study_path(study)}/series/{quote(series, safe='')}"


def instance_path(study: str, series: str, instance: str) -> str:
    """Address of an instance's page."""
    return f"{series_path(study, series)}/instances/{quote(instance, safe='')}"


def date(text: str | None) -> str:
    """A date of DICOM as people write it; what is none stays.

    >>> date("20260131"), date("soon")
    ('2026-01-31', 'soon')
    """
    match = _DATE(text or "")
    return "-".join(match.groups()) if match else text or ""


def clock(text: str | None) -> str:
    """A time of DICOM to the minute."""
    match = _TIME(text or "")
    return f"{match[1]}:{match[2]}" if match else text or ""


def person(text: str | None) -> str:
    """A person name: family name, given names (PS3.5 6.2.1.1).

    >>> person("Müller^Jörg^M.^Dr.")
    'Müller, Jörg M. Dr.'
    """
    family, _, rest = (text or "").partition("=")[0].partition("^")
    given = " ".join(part for part in rest.split("^") if part)
    return ", ".join(part for part in (family, given) if part)


def amount(count: float | None) -> str:
    """A number of bytes, to three digits.

    >>> amount(263), amount(16_700_000)
    ('263 bytes', '16.7 MB')
    """
    if count is None:
        return ""
    size, unit = float(count), 0
    while size >= 999.5 and unit < len(_UNITS) - 1:  # from there on it would be shown as 1e+03
        size, unit = size / 1000, unit + 1
    return f"{size:.3g} {_UNITS[unit]}"


def share(value: float | None) -> str:
    """A number between 0 and 1 as a percentage."""
    return "" if value is None else f"{value:.1%}"


def number(value: float | None) -> str:
    """A number to four digits."""
    return "" if value is None else f"{value:.4g}"


def moment(value: dt.datetime | None) -> str:
    """A time of the lake to the minute (UTC)."""
    return "" if value is None else f"{value:%Y-%m-%d %H:%M}"


def cell(value: object) -> str:
    """A value of the lake in a table."""
    if isinstance(value, dt.datetime):
        return moment(value)
    return number(value) if isinstance(value, float) else str(plain(value))


def uid_name(uid: str | None) -> str:
    """The name that the standard gives a UID, or the UID."""
    return UID(uid).name if uid else ""


@functools.cache
def environment() -> Environment:
    """The templates of this package; nothing they show is taken for HTML."""
    found = Environment(
        loader=PackageLoader("imaging_pipeline.web.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=plain,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made = (study_path, series_path, instance_path, viewer_path)
    found.globals |= {"dicomweb": ROOT, "style": STYLE, **{function.__name__: function for function in made}}
    for function in (date, clock, person, amount, share, number, moment, cell, uid_name):
        found.filters[function.__name__] = function
    return found


def page(template: str, values: Mapping[str, Any], status: int = 200) -> Response:
    """A page; lone surrogates of damaged texts are shown as question marks."""
    text = environment().get_template(template).render(values)
    return HTMLResponse(text.encode("utf-8", "replace"), status, HEADERS)


def refused(error: WebError | HTTPException, common: Mapping[str, Any]) -> Response:
    """A page that says why there is nothing to see."""
    found = page("message.html", {**common, "title": "Nothing to show", "text": error.detail}, _status(error))
    found.headers.update(error.headers or {})
    return found


def as_page(endpoint: Page, common: Callable[[Request], Mapping[str, Any]]) -> Page:
    """An endpoint whose refusals are pages, too."""

    @functools.wraps(endpoint)
    def run(request: Request) -> Response:
        try:
            return endpoint(request)
        except PoisonInput as refusal:
            error: WebError | HTTPException = web_error(refusal)
        except TransientError:
            error = HTTPException(
                503, "the service cannot read its data now; try again", {"retry-after": str(RETRY_SECONDS)}
            )
        except (WebError, HTTPException) as refusal:
            error = refusal
        return refused(error, common(request))

    return run


def _status(error: WebError | HTTPException) -> int:
    return error.status if isinstance(error, WebError) else error.status_code
