"""The clinical zone: what is sent lands in the folder of a source, and comes in with its next batch."""

from __future__ import annotations

from pathlib import Path

from imaging_pipeline.errors import PoisonInput
from imaging_pipeline.pacs.landing import Landing
from imaging_pipeline.web.stow.examination import Examined
from imaging_pipeline.web.stow.report import Failure, Fate, Refused, Stored


class LandingReceiver:
    """A source's folder as the place where objects are kept, as they are.

    Args:
        landing: the folder.
    """

    keeps_at_once = 8

    def __init__(self, landing: Landing) -> None:
        self._landing = landing
        self.refuse_when_full = landing.refuse_when_full
        self.part = landing.part

    def keep(self, part: Path, examined: Examined, _user: str) -> Fate:
        """Move an object into the folder; one that is there already, with the same bytes, is as good as stored."""
        try:
            self._landing.keep(part, announced=examined.sop_uid)
        except PoisonInput:
            return Refused(Failure.NOT_UNDERSTOOD, examined.sop_class_uid, examined.sop_uid)
        return Stored(examined.sop_class_uid, examined.study_uid, examined.series_uid, examined.sop_uid)
