"""The rules that the tables must satisfy, and the page that tells which they do not. Reads, never writes.

Rules about the lake's own consistency hold a batch (ERROR); those about the quality of the data let it pass (WARN).
"""

from imaging_pipeline.metadata.quality.evaluation import (
    Finding,
    Scope,
    count_placed,
    count_violations,
    evaluate,
)
from imaging_pipeline.metadata.quality.rules import Rule, all_rules, structural_rules

__all__ = [
    "Finding", "Rule", "Scope", "all_rules", "count_placed", "count_violations", "evaluate",
    "structural_rules",
]  # fmt: skip
