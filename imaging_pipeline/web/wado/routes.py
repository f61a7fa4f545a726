"""Addresses of WADO-RS and WADO-URI, to be included below the root of the DICOMweb service."""

from __future__ import annotations

from fastapi import APIRouter

from imaging_pipeline.web.index import Index
from imaging_pipeline.web.wado.answers import answered
from imaging_pipeline.web.wado.places import FramePlaces
from imaging_pipeline.web.wado.service import Wado
from imaging_pipeline.web.wado.uri import UriService
from imaging_pipeline.web.zone import Zone

_STUDY = "/studies/{study}"
_SERIES = _STUDY + "/series/{series}"
_INSTANCE = _SERIES + "/instances/{instance}"
_FRAMES = _INSTANCE + "/frames/{frames}"


def router(zone: Zone, index: Index) -> APIRouter:
    """Routes that read. They are plain Starlette routes: FastAPI's own cost more than a frame does.

    Rights are the gate's affair, which stands before every path.

    Args:
        zone: what is served.
        index: finds objects.
    """
    wado = Wado(zone, index, FramePlaces(zone.cache / "frame_places.sqlite"))
    routes = APIRouter()
    for level in (_STUDY, _SERIES, _INSTANCE):
        routes.add_route(level, answered(wado.retrieve))
        routes.add_route(level + "/metadata", answered(wado.metadata))
    for level in (_STUDY, _SERIES, _INSTANCE, _FRAMES):
        routes.add_route(level + "/rendered", answered(wado.rendered))
        routes.add_route(level + "/thumbnail", answered(wado.thumbnail))
    routes.add_route(_INSTANCE + "/bulkdata", answered(wado.bulk_data))
    routes.add_route(_FRAMES, answered(wado.frames))
    routes.add_route("/wado", answered(UriService(wado).retrieve))
    return routes
