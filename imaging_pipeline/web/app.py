"""The service of one zone: study pages, DICOMweb, the viewer, and in front of them the gate: who may see what."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from imaging_pipeline import __version__
from imaging_pipeline.web import conformance, qido
from imaging_pipeline.web.access.gate import Access
from imaging_pipeline.web.addresses import VIEWER
from imaging_pipeline.web.errors import install_errors
from imaging_pipeline.web.index import Index
from imaging_pipeline.web.isolation import IsolationHeaders
from imaging_pipeline.web.pages import routes as pages
from imaging_pipeline.web.qido import ROOT
from imaging_pipeline.web.stow import routes as stow
from imaging_pipeline.web.stow.receivers import receiver_of
from imaging_pipeline.web.viewer import install_viewer
from imaging_pipeline.web.wado import routes as wado
from imaging_pipeline.web.zone import Zone

_log = logging.getLogger(__name__)

REFRESH_SECONDS = 2.0
"""How often the lake is asked whether it has changed."""


def create_app(zone: Zone, access: Access, *, viewer: Path | None = None) -> FastAPI:
    """The application of one zone. Its state has ``zone`` and ``index``.

    Args:
        zone: what is served; a process serves one zone.
        access: who may do what.
        viewer: folder of the viewer's files, or None where it is not installed.
    """
    index = Index(zone)
    app = FastAPI(
        title=f"imaging-pipeline, {zone.name} zone",
        version=__version__,
        lifespan=_following(index),
        docs_url=None,  # FastAPI's pages load scripts from elsewhere
        redoc_url=None,
        openapi_url=None,
    )
    app.state.zone, app.state.index = zone, index
    install_errors(app)
    services = (
        qido.router(index),
        wado.router(zone, index),
        stow.router(access, receiver_of(zone), after_store=index.refresh),
    )
    for service in services:
        app.include_router(service, prefix=ROOT)
    app.include_router(conformance.router(services))
    install_viewer(app, viewer, zone.name)
    app.include_router(pages.router(zone, index, access, has_viewer=viewer is not None))
    access.install(app, knows=index.knows, static=(VIEWER, pages.STATIC))
    app.add_middleware(IsolationHeaders)
    return app


def _following(index: Index) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """The life of the application: meanwhile the index follows the lake."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(_follow(index))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            index.close()

    return lifespan


async def _follow(index: Index) -> None:
    while True:
        try:
            await run_in_threadpool(index.refresh)
        except Exception as error:  # noqa: BLE001 - an index that is not followed any more would show what was taken back
            _log.warning("the index was not refreshed: %s; trying again", type(error).__name__)
        await asyncio.sleep(REFRESH_SECONDS)
