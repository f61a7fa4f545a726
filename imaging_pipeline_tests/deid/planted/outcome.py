"""What the engine makes of a planted object, remembered for all tests of a process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from imaging_pipeline.deid.engine import Deidentifier
from imaging_pipeline.deid.profile import load_profile
from imaging_pipeline.errors import PoisonInput
from imaging_pipeline_tests.deid.corpus import keys
from imaging_pipeline_tests.deid.planted.judge import Verdict, judge
from imaging_pipeline_tests.deid.planted.plants import Planted

PROFILES = ("basic", "research")
DOMAIN = "north"

_outcomes: dict[tuple[str, str], Outcome] = {}


@dataclass(frozen=True)
class Outcome:
    """Released bytes and the verdict on them, or the reason the object was held."""

    data: bytes = b""
    verdict: Verdict | None = None
    reason: str = ""
    message: str = ""


@lru_cache(maxsize=4)
def engine(profile: str, project: str = "chest") -> Deidentifier:
    return Deidentifier(load_profile(profile), keys(project))


def outcome(planted: Planted, profile: str) -> Outcome:
    """De-identify one planted object and judge what comes out."""
    asked = planted.name, profile
    if asked not in _outcomes:
        try:
            data = engine(profile).deidentify(planted.data, patient_domain=DOMAIN).data
        except PoisonInput as refusal:
            _outcomes[asked] = Outcome(reason=str(refusal.reason), message=str(refusal))
        else:
            _outcomes[asked] = Outcome(data, judge(planted, data))
    return _outcomes[asked]


def what_is_left(verdict: Verdict) -> list[str]:
    """Every plant that survived, in words: kind, place, what is searched for; burned-in marks; unused bits."""
    left = [f"{plant.kind} at {plant.place}: {plant.needles}" for plant in verdict.left]
    return [*left, *verdict.seen, *verdict.overlays, *(["unused bits"] if verdict.hidden_bits else [])]
