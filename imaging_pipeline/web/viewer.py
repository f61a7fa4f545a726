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

from imaging_pipeline.web.addresses import VIEWER
from imaging_pipeline.web.errors import WebError
from imaging_pipeline.web.qido import ROOT

INDEX: Final = "index.html"
CONFIGURATION: Final = "app-config.js"

POLICY: Final = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' 'wasm-unsafe-eval' blob:; "
    "worker-src 'self' blob:; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' data: blob:; object-src 'none'; base-uri 'self'; frame-ancestors 'self'"
)
"""The viewer's own scripts need eval and inline code; nothing is loaded from, or sent to, anywhere else."""

LABELS: Final = ("pneumonia", "no pneumonia", "pneumonia ?")
"""What the viewer offers to call a measurement; other words may be typed. The labels of a dataset are made of these."""

_DIGEST_IN_NAME: Final = re.compile(r"(?:^|\.)[0-9a-f]{16}\.").search


def install_viewer(app: FastAPI, folder: Path | None, zone: str) -> None:
    """Serve the viewer's files below :data:`VIEWER`; without them, say how to get them.

    Args:
        app: of the zone.
        folder: the files, or None where they are not installed.
        zone: its name, which the viewer shows.
    """
    app.add_route(VIEWER.rstrip("/"), _with_slash)
    if folder is None:
        app.add_route(VIEWER + "{rest:path}", _not_installed)
    else:
        app.mount(VIEWER, _Viewer(folder, configuration(zone)), name="viewer")


def configuration(zone: str) -> str:
    """The viewer's configuration, a script: this service is its only source of data.

    Args:
        zone: what stands in the place of the viewer's name, with a link to the study pages.
    """
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
        "routerBasename": VIEWER.rstrip("/"),
        "extensions": [],
        "modes": [],
        "customizationService": [
            {
                "ohif.tours": {"$set": []},  # no guided tour over the first image
                "measurementLabels": {
                    "$set": {
                        "labelOnMeasure": False,
                        "exclusive": False,
                        "items": [{"value": label, "label": label} for label in LABELS],
                    }
                },
            }
        ],
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
    return _SCRIPT.format(config=json.dumps(config, indent=2), name=json.dumps(f"imaging-pipeline, {zone} zone"))


_SCRIPT: Final = """window.config = {config};
window.config.whiteLabeling = {{
  createLogoComponentFn: (React) => React.createElement("a", {{href: "/", style: {{color: "white"}}}}, {name}),
}};
"""


class _Viewer(StaticFiles):
    """Files of the viewer; addresses of its own pages all lead to its one page."""

    def __init__(self, folder: Path, configuration: str) -> None:
        super().__init__(directory=folder)
        self._configuration = configuration
        self._page = (folder / INDEX).read_text(encoding="utf-8")

    async def get_response(self, path: str, scope: Scope) -> Response:
        """A file, the page, or the configuration."""
        if path == CONFIGURATION:
            return _answer(self._configuration, "text/javascript")
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
    return RedirectResponse(str(request.url.replace(path=VIEWER)))


def _not_installed(_request: Request) -> Response:
    raise WebError(
        404, "the viewer is not installed: run 'imaging-pipeline viewer install' and start the service again"
    )
