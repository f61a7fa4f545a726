"""WADO-URI: one object, or one frame as a picture, by query parameters (PS3.18 9)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from imaging_pipeline.dicom.transcoding import WRITABLE
from imaging_pipeline.web.errors import WebError
from imaging_pipeline.web.index import Instance
from imaging_pipeline.web.wado.answers import caching, not_modified
from imaging_pipeline.web.wado.frames import frame_indices
from imaging_pipeline.web.wado.media import DICOM, not_acceptable
from imaging_pipeline.web.wado.rendered import (
    DEFAULT_QUALITY,
    JPEG,
    MAX_EDGE,
    PICTURES,
    Rendering,
    Viewport,
    read_quality,
    read_window,
)
from imaging_pipeline.web.wado.service import Wado

_NAMED: Final = ("studyUID", "seriesUID", "objectUID")


@dataclass(frozen=True, slots=True)
class UriService:
    """WADO-URI beside WADO-RS.

    Attributes:
        wado: finds and reads objects.
    """

    wado: Wado

    def retrieve(self, request: Request) -> Response:
        """The object, or a picture of one of its frames."""
        parameters = request.query_params
        if parameters.get("requestType") != "WADO" or not all(parameters.get(name) for name in _NAMED):
            raise WebError(400, "expected requestType=WADO, studyUID, seriesUID and objectUID")
        if parameters.get("anonymize") == "yes":
            raise WebError(400, "objects are not de-identified on the way; the research zone has released ones")
        instance = self.wado.find(*(parameters[name] for name in _NAMED))
        media_type = _media_type(parameters, instance)
        headers = caching("uri", str(sorted(parameters.items())), media_type, instance.instance_key, instance.version)
        unchanged = not_modified(request, headers)
        if unchanged is not None:
            return unchanged
        if media_type == DICOM:
            return self.wado.single(request, instance, _syntax(parameters), headers)
        index = frame_indices(parameters.get("frameNumber", "1"), instance)[0]
        picture = self.wado.picture(instance, index, _rendering(parameters, instance, media_type))
        return Response(picture, headers=headers, media_type=media_type)


def _media_type(parameters: Mapping[str, str], instance: Instance) -> str:
    """The first of the types asked for that can be given; JPEG for an image of one frame, else DICOM (PS3.18 9.4)."""
    asked = parameters.get("contentType")
    if asked is None:
        return JPEG if instance.number_of_frames == 1 else DICOM
    possible = (DICOM, *PICTURES) if instance.number_of_frames else (DICOM,)
    wanted = (part.partition(";")[0].strip().lower() for part in asked.split(","))
    found = next((kind for kind in wanted if kind in possible), None)
    if found is None:
        raise not_acceptable(possible)
    return found


def _syntax(parameters: Mapping[str, str]) -> str | None:
    syntax = parameters.get("transferSyntax")
    if syntax is not None and syntax not in WRITABLE:
        raise WebError(406, "objects cannot be given in that transfer syntax: leave it out to have them as stored")
    return syntax


def _rendering(parameters: Mapping[str, str], instance: Instance, media_type: str) -> Rendering:
    center, width = parameters.get("windowCenter"), parameters.get("windowWidth")
    if (center is None) != (width is None):
        raise WebError(400, "expected windowCenter and windowWidth together")
    quality = parameters.get("imageQuality")
    return Rendering(
        media_type,
        read_window(f"{center},{width}") if center is not None else None,
        _viewport(parameters, instance),
        read_quality(quality) if quality else DEFAULT_QUALITY,
    )


def _viewport(parameters: Mapping[str, str], instance: Instance) -> Viewport | None:
    """``rows`` and ``columns`` of the picture, and the ``region`` of the frame in it, as shares of its edges."""
    if not {"rows", "columns", "region"} & parameters.keys():
        return None
    try:
        rows, columns = (int(parameters.get(name, MAX_EDGE)) for name in ("rows", "columns"))
        left, top, right, bottom = (float(part) for part in parameters.get("region", "0,0,1,1").split(","))
    except ValueError:
        raise WebError(400, "expected rows and columns in pixels, and region=xmin,ymin,xmax,ymax from 0 to 1") from None
    edges = (left, top, right, bottom)
    if not all(map(math.isfinite, edges)) or not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise WebError(400, "expected region=xmin,ymin,xmax,ymax from 0 to 1")
    if not (1 <= rows <= MAX_EDGE and 1 <= columns <= MAX_EDGE):
        raise WebError(400, f"expected rows and columns from 1 to {MAX_EDGE}")
    height, width = instance.rows or 1, instance.columns or 1
    if not {"rows", "columns"} & parameters.keys():
        rows, columns = math.ceil((bottom - top) * height), math.ceil((right - left) * width)
    return Viewport(columns, rows, left * width, top * height, (right - left) * width, (bottom - top) * height)
