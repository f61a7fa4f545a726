"""Evidence of a batch in the research lake: written with its release, read again for the page and the check.

Owns the rows of ``deid_evidence``. Contains no counting of its own but for k-anonymity, which is that of all patients
in the lake: a batch alone would say too little. What is held is counted here by reason; the objects are in
``bronze.ingest_issue``, on the identified side.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from imaging_pipeline.catalog.inspection import OUT_OF_REACH
from imaging_pipeline.deid.anonymity import QUASI_IDENTIFIERS, anonymity_tables
from imaging_pipeline.deid.evidence import Evidence, Row, collect
from imaging_pipeline.deid.outcomes import Outcome, Verdict
from imaging_pipeline.deid.pseudonyms import ProjectKeys
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.objects.model import key_of

TABLE: Final = "deid_evidence"


@dataclass(frozen=True, slots=True)
class _Shape:
    """Which columns of a table of evidence are which columns of the lake's table; empty: none."""

    subject: str
    detail: str = ""
    number: str = "number"
    message: str = ""


_SHAPES: Final[Mapping[str, _Shape]] = {
    "counts": _Shape("measure", number="objects"),
    "reasons": _Shape("reason", "verdict", "objects", "most_often"),
    "actions": _Shape("path", "action", "elements", "attribute"),
    "screen": _Shape("measure", number="objects"),
    "pixels": _Shape("measure"),
    "warnings": _Shape("warning"),
    "options": _Shape("code"),
    "anonymity": _Shape("k", number="patients", message="classes"),
    "uniqueness": _Shape("attribute", number="patients_alone", message="values"),
}
_RUN: Final = "run"
_NUMBERS: Final = frozenset({"k", "classes", "values"})
"""Columns that are numbers in evidence and text in the lake."""


def held_outcome(source_token: str, issue: Mapping[str, object]) -> Outcome:
    """The outcome of an instance that is not released, from its issue."""
    reason = str(issue["issue_code"])
    verdict = Verdict.FAILED if reason in OUT_OF_REACH else Verdict.HELD
    return Outcome(source_token, verdict, reason, str(issue["message"]), str(issue["dicom_path"] or ""))


def kept_outcomes(research: Lake, instance_keys: Collection[str]) -> list[Outcome]:
    """Outcomes of instances that an earlier run has released, from their proofs."""
    rows = research.rows(_KEPT, [sorted(instance_keys)]) if instance_keys else []
    return [
        Outcome(
            token=str(token),
            verdict=Verdict.RELEASED,
            actions=_figures(actions),
            pixels=_figures(pixels),
            warnings=tuple(warnings or ()),  # type: ignore[arg-type]
            options=tuple(options or ()),  # type: ignore[arg-type]
            file=str(key),
            sha256=str(sha256),
            patient_id=str(patient),
            study_instance_uid=str(study),
        )
        for key, token, actions, pixels, warnings, options, sha256, patient, study in rows
    ]


def unread_outcomes(identified: Lake, keys: ProjectKeys, batch_id: str) -> list[Outcome]:
    """Outcomes of the batch's objects that are no instance: they could not be read as DICOM."""
    rows = identified.rows(_UNREAD, [batch_id])
    return [Outcome(keys.token("object", str(key)), Verdict.FAILED, str(code)) for key, code in rows]


def batch_evidence(research: Lake, run: Row, outcomes: Iterable[Outcome]) -> Evidence:
    """Count the outcomes of a batch; k-anonymity is that of the lake as it is now."""
    evidence = collect(run, outcomes, {})
    classes, uniqueness = anonymity_tables(_patients(research))
    return Evidence(evidence.run, {**evidence.tables, "anonymity": classes, "uniqueness": uniqueness})


def write_evidence(research: Lake, batch_id: str, evidence: Evidence | None) -> None:
    """Put the evidence of a batch in the place of what it had; None: it has none any more. Inside a transaction."""
    rows = [] if evidence is None else [_keyed(batch_id, *row) for row in _flat(evidence)]
    research.replace_batch("deid", TABLE, registry.table(TABLE).rows(rows), batch_id)


def read_evidence(research: Lake, batch_id: str) -> Evidence | None:
    """The evidence of a batch, without lists of objects and files, or None when it has none."""
    rows = research.rows(
        f"""SELECT topic, subject, detail, number, message FROM deid.{TABLE} WHERE arrival_batch = ?
        ORDER BY topic, number DESC, subject, detail""",
        [batch_id],
    )
    if not rows:
        return None
    tables: dict[str, list[Row]] = {name: [] for name in (*_SHAPES, "held", "files")}
    run: dict[str, object] = {}
    for topic, subject, detail, number, message in rows:
        if topic == _RUN:
            run[str(subject)] = message
        else:
            tables[str(topic)].append(_shaped(_SHAPES[str(topic)], subject, detail, number, message))
    return Evidence(run, tables)


def evidence_problems(research: Lake, batch_id: str) -> list[str]:
    """What is wrong with the evidence of a batch, in words; nothing of a batch may be used while anything is."""
    evidence = read_evidence(research, batch_id)
    if evidence is None:
        return ["there is no evidence of its release: run the batch again"]
    found = [] if evidence.is_closed else ["the counts of its evidence do not close"]
    ((proofs, others),) = research.rows(
        """SELECT count(*), count(*) FILTER (profile_digest <> ? OR key_id <> ? OR key_id IS NULL)
        FROM deid.deid_verification WHERE arrival_batch = ?""",
        [evidence.run.get("profile_digest"), evidence.run.get("key_id"), batch_id],
    )
    if int(str(proofs)) > evidence.count("files"):
        found.append("more files are released than its evidence counts")
    if others:
        found.append("files are released under another profile or key than its evidence says")
    return found


def _flat(evidence: Evidence) -> Iterator[tuple[str, str, str, int | None, str]]:
    for topic, shape in _SHAPES.items():
        for row in evidence.tables[topic]:
            message = str(row[shape.message]) if shape.message else ""
            detail = str(row[shape.detail]) if shape.detail else ""
            yield topic, str(row[shape.subject]), detail, int(str(row[shape.number])), message
    for name, value in evidence.run.items():
        yield _RUN, name, "", None, ", ".join(value) if isinstance(value, list) else str(value)


def _keyed(batch_id: str, topic: str, subject: str, detail: str, number: int | None, message: str) -> dict[str, object]:
    key = key_of(batch_id, topic, subject, detail)
    return {
        "evidence_key": key,
        "topic": topic,
        "subject": subject,
        "detail": detail,
        "number": number,
        "message": message,
        "arrival_batch": batch_id,
        "row_version": f"{batch_id}/{key}",
    }


def _shaped(shape: _Shape, subject: object, detail: object, number: object, message: object) -> Row:
    columns = {shape.subject: subject, shape.detail: detail, shape.message: message, shape.number: number}
    return {name: int(str(value)) if name in _NUMBERS else value for name, value in columns.items() if name}


def _figures(document: object) -> dict[str, int]:
    return json.loads(str(document)) if document else {}


def _patients(research: Lake) -> Iterator[tuple[str, dict[str, str]]]:
    """Pseudonym and quasi-identifiers of every study of the lake."""
    columns = {
        f"{table}.{column.name}": QUASI_IDENTIFIERS[column.tag]
        for table in ("dicom_patient", "dicom_study")
        for column in registry.table(table).columns
        if column.tag in QUASI_IDENTIFIERS
    }
    rows = research.rows(
        f"""SELECT dicom_patient.patient_id, {", ".join(columns)}
        FROM deid.dicom_patient LEFT JOIN deid.dicom_study USING (patient_key)"""
    )
    for patient, *values in rows:
        found = zip(columns.values(), values, strict=True)
        yield str(patient), {keyword: str(value) for keyword, value in found if value is not None}


_KEPT = """
SELECT instance_key, source_token, attribute_actions::VARCHAR, pixels::VARCHAR, warnings, claimed_options,
    content_sha256, patient_id, study_instance_uid
FROM deid.deid_verification
JOIN deid.dicom_file_location USING (instance_key)
JOIN deid.dicom_study USING (study_key)
JOIN deid.dicom_patient ON dicom_patient.patient_key = dicom_study.patient_key
WHERE instance_key IN (SELECT unnest(?))
"""

_UNREAD = """
SELECT object_key, coalesce(min(issue_code), 'malformed')
FROM bronze.object_catalog LEFT JOIN bronze.ingest_issue USING (object_key)
WHERE object_catalog.arrival_batch = ? AND parse_status = 'FAILED' AND deleted_at IS NULL
GROUP BY object_key
"""
