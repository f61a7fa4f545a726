"""Where each zone keeps what is sent to it."""

from __future__ import annotations

from typing import Final

from imaging_pipeline.pacs.landing import Landing
from imaging_pipeline.web.stow.annotations import AnnotationReceiver
from imaging_pipeline.web.stow.landing import LandingReceiver
from imaging_pipeline.web.stow.receiving import Receiver
from imaging_pipeline.web.zone import Zone, ZoneName

FREE_BYTES: Final = 2_000_000_000
"""With less free space on the disk of a zone nothing is taken."""


def receiver_of(zone: Zone, free_bytes: int = FREE_BYTES) -> Receiver:
    """The receiver of a zone: a landing folder for the clinical one, annotations only for research."""
    if zone.name is ZoneName.RESEARCH:
        return AnnotationReceiver(zone, free_bytes)
    return LandingReceiver(Landing(zone.landing, free_bytes))
