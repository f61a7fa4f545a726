"""Which batches of the research side may be shown and may leave the house.

A batch's rows and files stand on the research side before its checks have run, and stay there when one fails. So the
checks leave a mark for each batch that passed, a release takes the marks of its batch away first, and what goes to
others, and what a service shows, goes by the marks. A mark names the release that was looked at: a check that has read
what stood before clears nothing that came after. One empty file for each batch and check.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

CHECKS = ("release_is_complete", "no_identifier_on_research_side")
"""All of them must have passed since the batch was last released."""


_RELEASE = "release"


@dataclass(frozen=True, slots=True)
class _Mark:
    """What the name of a file says: a check passed for a release of a batch, or which release that is."""

    batch_id: str
    check: str
    release: str

    def path(self, folder: Path) -> Path:
        return folder / f"{self.batch_id}~{self.check}~{self.release}"


@dataclass(frozen=True, slots=True)
class Clearance:
    """The marks of one installation.

    Attributes:
        folder: where they are; it need not exist yet.
    """

    folder: Path

    def release(self, batch_id: str) -> str:
        """Which release of a batch stands: what a check must have read before it looks at anything."""
        return next((mark.release for mark in self._marks(batch_id) if mark.check == _RELEASE), "")

    def judge(self, batch_id: str, check: str, *, passed: bool, release: str) -> None:
        """Write down what a check said of a release of a batch."""
        path = _Mark(batch_id, check, release).path(self.folder)
        if passed:
            self.folder.mkdir(parents=True, exist_ok=True)
            path.touch()
        else:
            path.unlink(missing_ok=True)

    def withhold(self, batch_id: str) -> None:
        """Take a batch's marks away, before anything of it is written anew; checks under way clear nothing any more."""
        old = self._marks(batch_id)
        self.folder.mkdir(parents=True, exist_ok=True)
        _Mark(batch_id, _RELEASE, secrets.token_hex(8)).path(self.folder).touch()
        for mark in old:
            mark.path(self.folder).unlink(missing_ok=True)

    def batches(self) -> frozenset[str]:
        """The batches whose standing release passed every check."""
        releases: dict[str, set[str]] = defaultdict(set)
        passed: dict[tuple[str, str], set[str]] = defaultdict(set)
        for mark in self._marks():
            if mark.check == _RELEASE:
                releases[mark.batch_id].add(mark.release)
            elif mark.check in CHECKS:
                passed[mark.batch_id, mark.release].add(mark.check)
        return frozenset(
            batch_id
            for (batch_id, release), checks in passed.items()
            if len(checks) == len(CHECKS) and releases.get(batch_id, {""}) == {release}
        )

    def _marks(self, batch_id: str | None = None) -> list[_Mark]:
        names = [path.name for path in self.folder.glob("*~*~*")] if self.folder.is_dir() else []
        marks = [_Mark(*name.split("~", 2)) for name in names]
        return [mark for mark in marks if batch_id in (None, mark.batch_id)]
