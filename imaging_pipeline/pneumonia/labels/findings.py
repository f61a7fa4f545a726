"""Codes of findings and of their presence in structured reports, and the tasks they are labels of.

SNOMED CT, its older form SRT, and RadLex for pneumonia; presence as in CID 240 and CID 242 of PS3.16. Viewers without
codes write words: in a comment on a measurement, or as the meaning of a code that stands for free text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias

from imaging_pipeline.pneumonia.labels.plain import WORDS

Code: TypeAlias = tuple[str, str]
"""Coding Scheme Designator and Code Value."""

TASKS: Mapping[Code, str] = MappingProxyType(
    {
        ("SCT", "233604007"): "pneumonia",
        ("RADLEX", "RID5350"): "pneumonia",
        ("SCT", "46621007"): "atelectasis",
        ("SCT", "8186001"): "cardiomegaly",
        ("SCT", "287272002"): "cardiomegaly",
        ("SCT", "95436008"): "consolidation",
        ("SCT", "19242006"): "edema",
        ("SRT", "D2-61100"): "edema",
        ("SCT", "60046008"): "pleural effusion",
        ("SRT", "D2-80100"): "pleural effusion",
        ("SCT", "36118008"): "pneumothorax",
        ("SRT", "D2-80300"): "pneumothorax",
        ("SCT", "87433001"): "emphysema",
    }
)
"""Findings of a chest film, by their code."""

FINDING: frozenset[Code] = frozenset({("DCM", "121071"), ("SCT", "404684003")})
"""Concept names under which a finding is the value."""

PRESENCE: Mapping[Code, float | None] = MappingProxyType(
    {
        ("SCT", "52101004"): 1.0,
        ("SRT", "G-A203"): 1.0,
        ("SCT", "373066001"): 1.0,
        ("SCT", "272519000"): 0.0,
        ("SCT", "2667000"): 0.0,
        ("SCT", "410516002"): 0.0,
        ("SCT", "373067005"): 0.0,
        ("SCT", "42425007"): None,
        ("SCT", "82334004"): None,
        ("SCT", "64957009"): None,
        ("SCT", "415684004"): None,
    }
)
"""Present and yes; absent and no; equivocal, indeterminate, uncertain and suspected."""

MEASUREMENT_GROUP: Code = ("DCM", "125007")
PERSON_OBSERVER: Code = ("DCM", "121008")
ALGORITHM_NAME: Code = ("DCM", "111001")
COMMENT: Code = ("DCM", "121106")
FREE_TEXT = "CORNERSTONEFREETEXT"
"""Code Value under which viewers on Cornerstone put what was typed, in schemes of several names."""


def said_in_words(text: str) -> tuple[str, float | None] | None:
    """The task a short text names and what it says of it; None when it says anything else: nothing is guessed.

    >>> said_in_words("No pneumonia"), said_in_words("pneumonia?"), said_in_words("pneumonia of the left lung")
    (('pneumonia', 0.0), ('pneumonia', None), None)
    """
    said = " ".join(re.findall(r"[^\W_]+|[?]", text.casefold()))
    for task in _SPOKEN_OF:
        before, found, after = f" {said} ".partition(f" {task} ")
        rest = f"{before} {after}".strip()
        if found and (not rest or rest in WORDS):
            return task, WORDS[rest] if rest else 1.0
    return None


_SPOKEN_OF = sorted(set(TASKS.values()))
