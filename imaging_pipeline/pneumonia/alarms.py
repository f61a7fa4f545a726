"""Alarms: ways in which a model could tell the classes apart without looking at the lungs, each with a verdict.

Owns the form of an alarm and how a figure becomes a verdict. What is measured is in `shortcuts`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from imaging_pipeline.pneumonia.resampling import Interval


class Verdict(enum.StrEnum):
    """RAISED: figure and interval lie beyond the limit. UNCLEAR: the figure does, its interval does not.

    QUIET: neither. NOT_COMPUTED: the data do not say; the note says why.
    """

    RAISED = "raised"
    UNCLEAR = "unclear"
    QUIET = "quiet"
    NOT_COMPUTED = "not computed"


@dataclass(frozen=True, slots=True)
class Alarm:
    """One question, its answer in figures, and the verdict.

    Attributes:
        name: by which it may be waived.
        question: what is asked.
        figure: the answer, or None.
        interval: of the figure, from resampling patients.
        limit: beyond which the figure speaks for a shortcut.
        verdict: see `Verdict`.
        note: what else a reader must know.
    """

    name: str
    question: str
    figure: float | None
    interval: Interval | None
    limit: float
    verdict: Verdict
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "name": self.name,
            "question": self.question,
            "figure": self.figure,
            "ci_low": self.interval.low if self.interval else None,
            "ci_high": self.interval.high if self.interval else None,
            "limit": self.limit,
            "verdict": str(self.verdict),
            "note": self.note,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Alarm:
        """The alarm that ``to_dict`` described."""
        low, high = stored["ci_low"], stored["ci_high"]
        return cls(
            stored["name"],
            stored["question"],
            stored["figure"],
            None if low is None else Interval(low, high),
            stored["limit"],
            Verdict(stored["verdict"]),
            stored["note"],
        )


def judge(figure: float | None, interval: Interval | None, limit: float, *, is_low_bad: bool = False) -> Verdict:
    """The verdict on a figure.

    Args:
        figure: None where it could not be computed.
        interval: None where there are too few patients for one; then nothing is certain enough to raise an alarm.
        limit: a figure above it speaks for a shortcut.
        is_low_bad: a figure below the limit does.
    """
    if figure is None:
        return Verdict.NOT_COMPUTED
    sign = -1 if is_low_bad else 1
    if sign * figure <= sign * limit:
        return Verdict.QUIET
    if interval is None:
        return Verdict.UNCLEAR
    nearest = interval.high if is_low_bad else interval.low
    return Verdict.RAISED if sign * nearest > sign * limit else Verdict.UNCLEAR
