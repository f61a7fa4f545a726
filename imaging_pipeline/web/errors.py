"""Errors of the service as answers: a status and one sentence, never a value of the request or of an object.

What nobody expected is answered by the gate, which stands in front of all routes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from imaging_pipeline.errors import ConfigurationError, TransientError

_log = logging.getLogger(__name__)

RETRY_SECONDS = 5
"""What a client is told to wait when the lake or a store does not answer."""


class WebError(Exception):
    """An answer that is no success.

    Attributes:
        status: HTTP status.
        detail: what is wrong and what to do, in words; names parameters by their place, never by a value.
        headers: headers of the answer.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})


def install_errors(app: FastAPI) -> None:
    """Make answers of the errors that routes raise on purpose."""
    app.add_exception_handler(WebError, _told)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(TransientError, _busy)
    app.add_exception_handler(ConfigurationError, _busy)


def _answer(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse(
        {"detail": detail}, status_code=status, headers={"cache-control": "no-store", **(headers or {})}
    )


def _told(_request: Request, error: Exception) -> Response:
    assert isinstance(error, WebError)
    return _answer(error.status, error.detail, error.headers)


def _http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _answer(error.status_code, str(error.detail), error.headers)


def _invalid(_request: Request, _error: Exception) -> Response:
    # FastAPI's own answer repeats the values.
    return _answer(400, "a parameter of the request cannot be read")


def _busy(_request: Request, error: Exception) -> Response:
    _log.warning("the zone could not be read: %s", type(error).__name__)
    return _answer(503, "the service cannot read its data now; try again", {"retry-after": str(RETRY_SECONDS)})
