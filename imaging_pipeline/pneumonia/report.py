"""The report on a model for people, as Markdown: what it is worth for whom, what speaks against it, what the gate said.

Owns its form; everything in it comes from the stored card and the decision. Nothing in it may identify a patient.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from imaging_pipeline.pneumonia.gate import Decision
from imaging_pipeline.tensors.datasheet import SMALLEST_CELL

SHOWN = ("auroc", "auprc", "accuracy", "sensitivity", "specificity", "ppv", "npv", "brier")


def report_of(card: Mapping[str, Any], decision: Decision) -> str:
    """The report of a registered model."""
    return "\n".join(
        [
            "# Pneumonia model",
            "",
            *_what_it_is(card),
            *_section("Promotion", _promotion(decision)),
            *_section("Shortcut alarms", _alarms(card["alarms"])),
            *_section("Evaluation", _evaluations(card["evaluations"])),
            *_section("Answers", _answers(card.get("answers", {}))),
            *_section("Calibration", _calibration(card["calibration"])),
            *_section("Use", _use(card)),
        ]
    )


def _what_it_is(card: Mapping[str, Any]) -> Iterator[str]:
    yield f"A {card['architecture']} trained on dataset `{card['dataset_id']}`, version `{card['dataset_version']}`."
    yield f"{card['training_data_summary']}. Training took {card['training_seconds']:.0f} s."


def _section(title: str, lines: Iterator[str]) -> Iterator[str]:
    yield ""
    yield f"## {title}"
    yield ""
    yield from lines


def _promotion(decision: Decision) -> Iterator[str]:
    yield "Champion." if decision.is_promoted else "**Refused.**"
    yield ""
    yield from (f"- {reason}" for reason in decision.reasons)
    if decision.comparisons:
        yield ""
        yield from _table(
            ("images", "figure", "patients", "champion", "challenger", "difference", "greater in"),
            [
                (
                    each.subgroup,
                    each.figure,
                    each.patients,
                    f"{each.champion:.3f}",
                    f"{each.challenger:.3f}",
                    _with_interval(
                        each.difference,
                        each.interval.low if each.interval else None,
                        each.interval.high if each.interval else None,
                        sign="+",
                    ),
                    f"{each.better_in:.0%}",
                )
                for each in decision.comparisons
                if each.patients >= SMALLEST_CELL
            ],
        )


def _alarms(alarms: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield from _table(
        ("alarm", "question", "figure", "limit", "verdict", "note"),
        [
            (
                each["name"],
                each["question"],
                _with_interval(each["figure"], each["ci_low"], each["ci_high"]),
                f"{each['limit']:g}",
                f"**{each['verdict']}**" if each["verdict"] == "raised" else each["verdict"],
                each["note"],
            )
            for each in alarms
        ],
    )
    raised = [each["name"] for each in alarms if each["verdict"] == "raised"]
    if raised:
        yield ""
        yield (
            f"Raised: {', '.join(raised)}. The figures below may come from this shortcut: they say nothing certain of "
            "images in which it is not there."
        )


def _evaluations(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    by_part: defaultdict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    whole: set[str] = set()
    for entry in entries:
        of = f"{entry['dataset_name']} (external): " if "dataset_name" in entry else ""
        group = ", ".join(f"{name} {value}" for name, value in entry["subgroup"].items()) or "all images"
        by_part[of + group][entry["metric_name"]] = entry
        if not entry["subgroup"]:
            whole.add(of + group)
    rows, hidden = [], 0
    for name, figures in by_part.items():
        details = next(iter(figures.values()))["metric_details"]
        if details["patients"] < SMALLEST_CELL and name not in whole:
            hidden += 1
            continue
        cells = (
            _with_interval(figures[each]["metric_value"], figures[each]["ci_low"], figures[each]["ci_high"])
            for each in SHOWN
        )
        rows.append((name, f"{details['images']} of {details['patients']}", *cells))
    yield from _table(("images", "images of patients", *SHOWN), rows)
    yield ""
    yield "Intervals are of 95 %, from resampling whole patients."
    if hidden:
        yield f"{hidden} subgroups of fewer than {SMALLEST_CELL} patients are not shown."


def _answers(figures: Mapping[str, float]) -> Iterator[str]:
    yield f"No answer: {figures.get('images_refused', 0):.0f} test images ({figures.get('refused', 0):.1%}), which are"
    yield "unlike the films of the training. The figures above are over the others."
    if {"uncertainty_right", "uncertainty_wrong"} <= figures.keys():
        yield ""
        yield f"The uncertainty of right answers is {figures['uncertainty_right']:.3f} on average, of wrong ones"
        yield f"{figures['uncertainty_wrong']:.3f}; as a sign of errors its AUROC is"
        yield f"{figures['uncertainty_auroc_of_errors']:.3f}."


def _calibration(figures: Mapping[str, float]) -> Iterator[str]:
    yield from _table(("figure", "value"), [(name, f"{value:.4f}") for name, value in figures.items()])


def _use(card: Mapping[str, Any]) -> Iterator[str]:
    yield f"Meant for images of modality {', '.join(card['modality_scope'])}, made by the recipe of its dataset;"
    yield f"{card['postprocessing_notes']}."
    yield "It is no medical device, and nothing is claimed of images unlike those it was tested on."


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    yield "| " + " | ".join(header) + " |"
    yield "|" + " --- |" * len(header)
    for row in rows:
        yield "| " + " | ".join(str(cell).replace("|", "/") for cell in row) + " |"


def _with_interval(value: float | None, low: float | None, high: float | None, *, sign: str = "") -> str:
    if value is None:
        return ""
    text = f"{value:{sign}.3f}"
    return text if low is None or high is None else f"{text} [{low:{sign}.3f}, {high:{sign}.3f}]"
