"""A clock that stands still, and the access of a zone with one user of each kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from imaging_pipeline.web.access.gate import Access
from imaging_pipeline.web.access.roles import Role, Scope


class Clock:
    """Time as the test says it."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def access(tmp_path: Path, clock: Clock) -> Access:
    made = Access("research", tmp_path / "access", project="lung", clock=clock)
    made.accounts.add_user("reader", {Role.RESEARCH}, {"lung"})
    made.accounts.add_user("annotator", {Role.RESEARCH, Role.ANNOTATOR}, {"lung", "heart"})
    made.accounts.add_user("stranger", {Role.RESEARCH, Role.ANNOTATOR, Role.OPERATOR}, {"heart"})
    made.accounts.add_user("clinician", {Role.CLINICAL, Role.ANNOTATOR}, {"lung"})
    made.accounts.add_user("operator", {Role.OPERATOR})
    return made


def token_of(access: Access, user: str) -> str:
    return access.accounts.create_token(user, set(Scope)).text
