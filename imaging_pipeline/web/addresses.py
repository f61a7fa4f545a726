"""Where a service shows a study: paths that others may link to. They hold a UID and nothing else of a patient."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

VIEWER: Final = "/viewer/"
"""The viewer is served below this."""


def study_path(study: str) -> str:
    """The page of a study, by its Study Instance UID."""
    return f"/studies/{quote(study, safe='')}"


def viewer_path(study: str) -> str:
    """Where the viewer shows a study, by its Study Instance UID."""
    return f"{VIEWER}viewer?StudyInstanceUIDs={quote(study, safe='')}"
