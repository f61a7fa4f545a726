"""The rules: those shipped as data in ``lake/data/rules``, and those that follow from the registry.

SQL of a rule gives the offending rows: their keys, the first column being that of what is wrong, and counts or
distances, never values. It names tables as ``{own.TABLE}`` (rows of the batch), ``{near.TABLE}`` (rows of all batches
that share a study or a SOP Instance UID with it), ``{all.TABLE}``; as ``{keys.TABLE}`` keys and versions of near rows;
what the batch is about as ``{touched.series_key}`` (a query; study and patient alike); as ``{slices}`` the images of
its series in the order of their position; as ``{instances}`` the keys and versions of near instances; and as
``{is_own.ROW}`` whether a row is of the batch.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

from imaging_pipeline.errors import Severity
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.dictionary.data import kept
from imaging_pipeline.lake.dictionary.joins import relations
from imaging_pipeline.lake.registry import Table

ATTRIBUTES_NAME = "attributes"
"""Column in which the rules of attribute types name the missing attributes."""

_SEVERITIES = {"ERROR": Severity.ERROR, "WARN": Severity.WARNING}
_HEAD = re.compile(r"-- (rule|table|severity|schemas|means|do): (.+)")
_SHARED = ("dicom_patient", "dicom_study", "dicom_series", "dicom_equipment", "series_equipment")
_PIPELINE_FAULT = "A fault of the pipeline: the batch is held; materialize it again, and report it if it stays."


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that must hold.

    Attributes:
        name: what holds, in snake_case; of structural rules in words.
        table: the table whose rows it is about.
        severity: ERROR holds the batch, WARNING does not.
        schemas: where it is looked at: ``silver``, ``deid``.
        means: what it means when it is broken.
        advice: what to do then.
        sql: gives the offending rows (see the module).
    """

    name: str
    table: str
    severity: Severity
    schemas: tuple[str, ...]
    means: str
    advice: str
    sql: str


@kept
def all_rules(schema: str) -> tuple[Rule, ...]:
    """All rules of ``silver`` or ``deid``: structural ones, those of attribute types, and the shipped ones."""
    found = (*structural_rules(schema), *attribute_rules(), *shipped_rules())
    return tuple(rule for rule in found if schema in rule.schemas)


@functools.cache
def shipped_rules() -> tuple[Rule, ...]:
    """The rules of ``lake/data/rules``, file by file in order of their names."""
    folder = resources.files("imaging_pipeline.lake").joinpath("data", "rules")
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda entry: entry.name)
    return tuple(rule for file in files for rule in parse_rules(file.read_text(encoding="utf-8")))


def parse_rules(text: str) -> list[Rule]:
    """The rules of one file: each a head of comments, ``-- rule: NAME`` first, and its SQL.

    Raises:
        ValueError: a rule lacks a line of its head.
    """
    found: list[Rule] = []
    for part in re.split(r"(?m)^(?=-- rule: )", text):
        if not part.strip():
            continue
        head = {match[1]: match[2] for match in map(_HEAD.fullmatch, part.splitlines()) if match}
        if len(head) != 6:
            raise ValueError(f"rule {head.get('rule', '?')}: needs rule, table, severity, schemas, means and do")
        lines = [line for line in part.splitlines() if not _HEAD.fullmatch(line)]
        severity, schemas = _SEVERITIES[head["severity"]], tuple(head["schemas"].split())
        sql = "\n".join(lines).strip()
        found.append(Rule(head["rule"], head["table"], severity, schemas, head["means"], head["do"], sql))
    return found


@kept
def structural_rules(schema: str) -> tuple[Rule, ...]:
    """Keys occur once, children have their parents, and what belongs to an instance is of its current version.

    A batch that breaks one is held. Tables below the instance are looked at in the batch and its near ones only.
    """
    return tuple(
        rule
        for table in registry.tables_of(schema)
        if not table.is_view and table.key
        for rule in (*_unique(schema, table), *_parents(schema, table))
    )


def _unique(schema: str, table: Table) -> Iterator[Rule]:
    key = ", ".join(table.key)
    if _is_below_instance(table):
        place, condition = f"{{keys.{table.name}}} AS child", " AND bool_or({is_own.child})"
    else:
        place = f"{{all.{table.name}}} WHERE ({key}) IN (SELECT ({key}) FROM {{own.{table.name}}})"
        condition = ""
    yield Rule(
        name=f"{table.name}: {key} is unique",
        table=table.name,
        severity=Severity.ERROR,
        schemas=(schema,),
        means=f"Several rows of {table.name} have one key; joins to it would count things twice.",
        advice=_PIPELINE_FAULT,
        sql=f"SELECT {key}, count(*) AS copies FROM {place} GROUP BY {key} HAVING count(*) > 1{condition}",
    )


def _parents(schema: str, table: Table) -> Iterator[Rule]:
    """The parent of each row; of what is below the instance: the version of the instance that it was made with."""
    if _is_below_instance(table):
        yield Rule(
            name=f"{table.name}: instance_key is in dicom_instance",
            table=table.name,
            severity=Severity.ERROR,
            schemas=(schema,),
            means=f"Rows of {table.name} are of no instance, or were left over by an earlier version of one.",
            advice=_PIPELINE_FAULT,
            sql=f"""SELECT instance_key, count(*) AS row_count FROM {{keys.{table.name}}} AS child
            WHERE ({{is_own.child}}
                OR instance_key IN (SELECT instance_key FROM {{instances}} AS own WHERE {{is_own.own}}))
            AND NOT EXISTS (SELECT 1 FROM {{instances}} AS parent
                WHERE parent.instance_key = child.instance_key
                    AND parent.arrival_batch = child.arrival_batch AND parent.row_version = child.row_version)
            GROUP BY instance_key""",
        )
        return
    required = {column.name for column in table.columns if column.is_required}
    if "arrival_batch" not in required or not table.has_versions:
        return
    # What hangs on a series is made with its row: a row of another version was left over.
    version = " AND parent.row_version = child.row_version" if _hangs_on_series(table) else ""
    for relation in relations(schema, table.name):
        (parent_schema, parent), (key, *longer) = relation.to_table, relation.columns
        if longer or key not in required or not relation.is_plain or parent_schema != schema:
            continue  # what may be empty names things that need not be here (yet)
        yield Rule(
            name=f"{table.name}: {key} is in {parent}",
            table=table.name,
            severity=Severity.ERROR,
            schemas=(schema,),
            means=f"Rows of {table.name} belong to a row of {parent} that is not there; joins would lose them.",
            advice=_PIPELINE_FAULT,
            sql=f"""SELECT {", ".join(dict.fromkeys((*table.key, key)))} FROM {{own.{table.name}}} AS child
            WHERE NOT EXISTS (SELECT 1 FROM {{all.{parent}}} AS parent
                WHERE parent.{key} = child.{key}{version if key == "series_key" else ""})""",
        )


def _is_below_instance(table: Table) -> bool:
    """Its rows are made with those of one instance, and go with them."""
    is_made = bool(table.made_from) and not table.is_view
    return is_made and table.key[0] == "instance_key" and table.name != "dicom_instance"


def _hangs_on_series(table: Table) -> bool:
    return table.key[0] == "series_key" and table.name not in _SHARED


@kept
def attribute_rules() -> tuple[Rule, ...]:
    """Attributes of type 1 and 2 (PS3.5 7.4), table by table. Conditional ones need the condition and are left out."""
    made = [table for table in registry.tables_of("silver") if table.made_from and not table.is_view]
    return tuple(rule for table in made for kind in ("1", "2") for rule in _of_type(table, kind))


def _of_type(table: Table, kind: str) -> Iterator[Rule]:
    names = [c.name for c in table.columns if c.attribute_type == kind and not c.is_required]
    if not names:
        return
    missing = ", ".join(f"CASE WHEN {name} IS NULL THEN '{name}' END" for name in names)
    key = ", ".join(table.key)
    where = " OR ".join(f"{name} IS NULL" for name in names)
    batch = _touched(table)
    yield Rule(
        name=f"type_{kind}_attributes_of_{table.name}",
        table=table.name,
        severity=Severity.WARNING,
        schemas=("silver",),
        means={
            "1": "An attribute that must have a value (type 1) is missing, empty or not legal.",
            "2": "An attribute that must be there, if only empty (type 2), has no value.",
        }[kind],
        advice={
            "1": "Queries by it miss these rows; ask the sender to correct the device or the router.",
            "2": "The standard allows it to be empty: decide whether your question can do without it.",
        }[kind],
        sql=f"""SELECT {key}, array_to_string(list_filter([{missing}], lambda name: name IS NOT NULL), ' ')
            AS {ATTRIBUTES_NAME} FROM {batch} WHERE ({where})""",
    )


def _touched(table: Table) -> str:
    """Rows of a table that a batch is about: a series may have come with an earlier batch and grow in this one."""
    key = table.key[0]
    if table.name in _SHARED and key in ("series_key", "study_key", "patient_key"):
        return f"(SELECT * FROM {{all.{table.name}}} WHERE {key} IN ({{touched.{key}}}))"
    return f"{{own.{table.name}}}"
