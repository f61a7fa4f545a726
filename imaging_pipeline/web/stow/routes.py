"""The store transaction's resources: ``POST /studies`` and ``POST /studies/{study}`` (PS3.18 10.5)."""

import asyncio
import logging
from collections.abc import Callable
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from imaging_pipeline.dicom.values import is_uid
from imaging_pipeline.errors import TransientError
from imaging_pipeline.web.access.gate import Access
from imaging_pipeline.web.access.roles import Principal
from imaging_pipeline.web.errors import WebError
from imaging_pipeline.web.stow.multipart import MalformedBodyError, parameters
from imaging_pipeline.web.stow.receiving import DICOM, Receiver, Transaction
from imaging_pipeline.web.stow.report import Stored, report, status_of

_log: Final = logging.getLogger(__name__)

MOST_AT_ONCE: Final = 16
"""Store transactions at once; more are told to come again."""

_BLOCK: Final = 1 << 20
_RETRY: Final = {"Retry-After": "10"}
_DICOM_JSON: Final = "application/dicom+json"
_ACCEPTED: Final = frozenset({_DICOM_JSON, "application/json", "application/*", "*/*"})


def router(access: Access, receiver: Receiver, *, after_store: Callable[[], object] | None = None) -> APIRouter:
    """The routes, without a prefix.

    Args:
        access: who may write.
        receiver: where the zone keeps what is sent.
        after_store: called, in a thread, when something was kept.
    """
    routes = APIRouter()
    under_way = set[object]()

    async def store(request: Request, user: str, study: str | None) -> JSONResponse:
        if len(under_way) >= MOST_AT_ONCE:
            raise WebError(503, "too many objects are being stored now; try again", _RETRY)
        token = object()
        under_way.add(token)
        try:
            return await _store(request, receiver, user, study, after_store)
        finally:
            under_way.discard(token)

    @routes.post("/studies")
    async def store_anywhere(request: Request, writer: Annotated[Principal, Depends(access.writer)]) -> JSONResponse:
        """Store objects of any study."""
        return await store(request, writer.name, None)

    @routes.post("/studies/{study}")
    async def store_in_study(
        request: Request, study: str, writer: Annotated[Principal, Depends(access.writer)]
    ) -> JSONResponse:
        """Store objects of one study; those of another are refused."""
        if not is_uid(study):
            raise WebError(400, "the study in the path is no UID")
        return await store(request, writer.name, study)

    return routes


async def _store(
    request: Request, receiver: Receiver, user: str, study: str | None, after_store: Callable[[], object] | None
) -> JSONResponse:
    _refuse_other_answers(request)
    boundary = _boundary(request)
    try:
        await run_in_threadpool(receiver.refuse_when_full, _stated_length(request))
    except TransientError:
        raise WebError(507, "there is no room for this; what was sent was not read", _RETRY) from None
    try:
        transaction = await run_in_threadpool(Transaction, receiver, user, study, boundary)
        try:
            await _read_body(request, transaction)
            fates = await run_in_threadpool(transaction.finish)
        finally:
            await run_in_threadpool(transaction.abandon)
            if after_store is not None and any(isinstance(fate, Stored) for fate in transaction.fates):
                await _told(after_store)
    except MalformedBodyError as error:
        raise WebError(400, f"the body cannot be read: {error}") from None
    except ClientDisconnect:
        raise WebError(400, "the body did not come whole") from None
    if not fates:
        raise WebError(400, "the body holds no object")
    base_url = str(request.url.replace(query="")).rpartition("/studies")[0]
    return JSONResponse(report(fates, base_url), status_of(fates), media_type=_DICOM_JSON)


async def _told(after_store: Callable[[], object]) -> None:
    """What follows a store may fail: what was kept is kept."""
    try:
        await run_in_threadpool(after_store)
    except Exception as error:  # noqa: BLE001 - its text may hold what was read
        _log.warning("what follows a store failed: %s", type(error).__name__)


async def _read_body(request: Request, transaction: Transaction) -> None:
    """Hand the body on in blocks of a size that is worth the way to another thread; meanwhile the next one comes."""
    block, under_way = bytearray(), asyncio.Future[None]()
    under_way.set_result(None)
    try:
        async for chunk in request.stream():
            block += chunk
            if len(block) >= _BLOCK:
                await asyncio.shield(under_way)
                under_way = asyncio.ensure_future(run_in_threadpool(transaction.feed, block))
                block = bytearray()
    finally:
        await asyncio.wait({under_way})  # also where the request is given up: nothing is abandoned under it
    await under_way
    if block:
        await run_in_threadpool(transaction.feed, block)


def _boundary(request: Request) -> str | None:
    """The boundary of a multipart body, or None for a body that is one object.

    Raises:
        WebError: 415, the body is of another kind; 400, it has no boundary.
    """
    kind, values = parameters(request.headers.get("content-type", ""))
    if kind == DICOM:
        return None
    if kind != "multipart/related" or values.get("type", DICOM).lower() != DICOM:
        raise WebError(415, f'expected multipart/related; type="{DICOM}", or {DICOM}', {"Accept": DICOM})
    if "boundary" not in values:
        raise WebError(400, "the Content-Type has no boundary")
    return values["boundary"]


def _refuse_other_answers(request: Request) -> None:
    """Refuse a request whose answer could not be read (PS3.18 8.7): answers are DICOM JSON."""
    wanted = {part.partition(";")[0].strip().lower() for part in request.headers.get("accept", "*/*").split(",")}
    if not wanted & _ACCEPTED:
        raise WebError(406, f"answers are {_DICOM_JSON}")


def _stated_length(request: Request) -> int:
    text = request.headers.get("content-length", "0")
    return int(text) if text.isdecimal() else 0
