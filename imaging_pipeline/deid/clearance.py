"""Which batches of the research side may be shown and may leave the house.

A batch's rows and files stand on the research side before its checks have run, and stay there when one fails. So the
checks leave a mark for each batch that passed, a release takes the marks of its batch away first, and what goes to
others, and what a service shows, goes by the marks. One empty file for each batch and check.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

CHECKS = ("release_is_complete", "no_identifier_on_research_side")
"""All of them must have passed since the batch was last released."""


@dataclass(frozen=True, slots=True)
class Clearance:
    """The marks of one installation.

    Attributes:
        folder: where they are; it need not exist yet.
    """

    folder: Path

    def judge(self, batch_id: str, check: str, *, passed: bool) -> None:
        """Write down what a check said of a batch."""
        mark = self._mark(batch_id, check)
        if passed:
            self.folder.mkdir(parents=True, exist_ok=True)
            mark.touch()
        else:
            mark.unlink(missing_ok=True)

    def withhold(self, batch_id: str) -> None:
        """Take a batch's marks away, before anything of it is written anew."""
        for check in CHECKS:
            self._mark(batch_id, check).unlink(missing_ok=True)

    def batches(self) -> frozenset[str]:
        """The batches that passed every check."""
        marks = [path.name for path in self.folder.glob("*~*")] if self.folder.is_dir() else []
        passed = Counter(name.partition("~")[0] for name in marks if name.partition("~")[2] in CHECKS)
        return frozenset(batch for batch, count in passed.items() if count == len(CHECKS))

    def _mark(self, batch_id: str, check: str) -> Path:
        return self.folder / f"{batch_id}~{check}"
