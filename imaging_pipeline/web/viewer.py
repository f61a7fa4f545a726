"""The OHIF viewer, hosted from a folder under its own path, with a configuration that knows this service alone.

Its files are not part of this software: ``imaging-pipeline viewer install`` puts them there.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from imaging_pipeline.web.errors import WebError
from imaging_pipeline.web.qido import ROOT

PATH: Final = "/viewer/"

INDEX: Final = "index.html"
CONFIGURATION: Final = "app-config.js"

POLICY: Final = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' 'wasm-unsafe-eval' blob:; "
    "worker-src 'self' blob:; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' data: blob:; object-src 'none'; base-uri 'self'; frame-ancestors 'self'"
)
"""The viewer's own scripts need eval and inline code; nothing is loaded from, or sent to, anywhere else."""

_DIGEST_IN_NAME: Final = re.compile(r"(?:^|\.)[0-9a-f]{16}\.").search


def install_viewer(app: FastAPI, folder: Path | None) -> None:
    """Serve the viewer's files below :data:`PATH`; without them, say how to get them."""
    app.add_route(PATH.rstrip("/"), _with_slash)
    if folder is None:
        app.add_route(PATH + "{rest:path}", _not_installed)
    else:
        app.mount(PATH, _Viewer(folder), name="viewer")


def configuration() -> str:
    """The viewer's configuration: this service is its only source of data."""
    service = {
        "friendlyName": "imaging-pipeline",
        "name": "imaging-pipeline",
        "qidoRoot": ROOT,
        "wadoRoot": ROOT,
        "wadoUriRoot": f"{ROOT}/wado",
        "qidoSupportsIncludeField": True,
        "supportsFuzzyMatching": True,
        "supportsWildcard": True,
        "imageRendering": "wadors",
        "thumbnailRendering": "thumbnail",
        "enableStudyLazyLoad": True,
        "dicomUploadEnabled": False,
        "bulkDataURI": {"enabled": True},
        "singlepart": "bulkdata,video,pdf",
        "omitQuotationForMultipartRequest": True,
    }
    config = {
        "name": "imaging-pipeline",
        "routerBasename": PATH.rstrip("/"),
        "extensions": [],
        "modes": [],
        "customizationService": [{"ohif.tours": {"$set": []}}],  # no guided tour over the first image
        "showStudyList": True,
        "showWarningMessageForCrossOrigin": False,
        "showCPUFallbackMessage": True,
        "showLoadingIndicator": True,
        "strictZSpacingForVolumeViewport": True,
        "investigationalUseDialog": {"option": "never"},
        "maxNumberOfWebWorkers": 3,
        "defaultDataSourceName": "dicomweb",
        "dataSources": [
            {
                "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
                "sourceName": "dicomweb",
                "configuration": service,
            }
        ],
    }
    return f"window.config = {json.dumps(config, indent=2)};\n"


class _Viewer(StaticFiles):
    """Files of the viewer; addresses of its own pages all lead to its one page."""

    def __init__(self, folder: Path) -> None:
        super().__init__(directory=folder)
        self._page = (folder / INDEX).read_text(encoding="utf-8")

    async def get_response(self, path: str, scope: Scope) -> Response:
        """A file, the page, or the configuration."""
        if path == CONFIGURATION:
            return _answer(configuration(), "text/javascript")
        if path in (".", "", INDEX):
            return _answer(self._page, "text/html")
        try:
            response = await super().get_response(path, scope)
        except HTTPException as error:
            if error.status_code != 404 or "." in path.rpartition("/")[2]:
                raise
            return _answer(self._page, "text/html")
        is_unchanging = _DIGEST_IN_NAME(path.rpartition("/")[2])
        response.headers["cache-control"] = "private, max-age=31536000, immutable" if is_unchanging else "no-cache"
        response.headers["content-security-policy"] = POLICY
        return response


def _answer(text: str, media_type: str) -> Response:
    headers = {"cache-control": "no-cache", "content-security-policy": POLICY}
    return Response(text, media_type=media_type, headers=headers)


def _with_slash(request: Request) -> Response:
    return RedirectResponse(str(request.url.replace(path=PATH)))


def _not_installed(_request: Request) -> Response:
    raise WebError(
        404, "the viewer is not installed: run 'imaging-pipeline viewer install' and start the service again"
    )
