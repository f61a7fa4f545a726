"""Looking at rules: over one batch without reading more of the lake than its own and near rows, or over everything."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import duckdb

from imaging_pipeline.errors import Severity
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake, quoted
from imaging_pipeline.lake.table import Table, view_sql
from imaging_pipeline.metadata.quality.rules import Rule, structural_rules

MOST_OFFENDERS = 20
"""Offending rows kept of each rule; all are counted."""

_TOKEN = re.compile(r"\{(own|near|all|keys|touched|is_own)\.(\w+)\}")
_SLICES_END = "    -- (the rules of quality name single slices: they read the steps up to here)\n"
_SLICES, _INSTANCES = "temp.quality_slices", "temp.quality_instances"


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one rule.

    Attributes:
        rule: the rule.
        checked: rows, or series, studies and patients, that were looked at.
        failed: those of them that break it.
        rows: offending rows; more than ``failed`` where one series has several.
        offenders: the first of them: keys, counts and distances by column.
        error: kind of the error because of which the rule could not be looked at, or empty.
    """

    rule: Rule
    checked: int
    failed: int
    rows: int
    offenders: tuple[Mapping[str, object], ...] = ()
    error: str = ""

    @property
    def is_passed(self) -> bool:
        """Nothing breaks the rule."""
        return not self.failed and not self.error


class Scope:
    """The rows that rules are looked at over: those of one batch in one schema, or all of them."""

    def __init__(self, lake: Lake, schema: str, batch_id: str | None = None) -> None:
        self.lake = lake
        self.schema = schema
        self.batch_id = batch_id
        self._near = _near_batches(lake, schema, batch_id) if batch_id else ()
        self._checked: dict[str, int] = {}
        self._prepared: set[str] = set()
        self._written = lake.written_tables()

    def sql(self, text: str) -> str:
        """SQL of a rule with its places filled in."""
        if "{slices}" in text and _SLICES not in self._prepared:
            self._prepare(_SLICES, self._slices())
        if "{instances}" in text and _INSTANCES not in self._prepared:
            self._prepare(_INSTANCES, "SELECT instance_key, arrival_batch, row_version FROM {near.dicom_instance}")
        filled = _TOKEN.sub(lambda match: self._resolve(*match.groups()), text)
        return filled.replace("{slices}", _SLICES).replace("{instances}", _INSTANCES)

    def checked(self, table: str) -> int:
        """How many rows of a table, or series, studies and patients, are looked at."""
        if table not in self._checked:
            key = registry.table(table).key[0]
            is_shared = table in ("dicom_series", "dicom_study", "dicom_patient")
            source = f"({{touched.{key}}})" if is_shared else f"{{own.{table}}}"
            self._checked[table] = self.count(self.sql(source)) if self._place(table) in self._written else 0
        return self._checked[table]

    def count(self, source: str) -> int:
        """Rows of a table or of a query in brackets."""
        ((count,),) = self.lake.rows(f"SELECT count(*) FROM {source}")
        return int(str(count))

    def _resolve(self, kind: str, name: str) -> str:
        if kind == "touched":
            return _TOKEN.sub(lambda match: self._resolve(*match.groups()), self._touched(name))
        if kind == "is_own":
            return "true" if self.batch_id is None else f"{name}.arrival_batch = {quoted(self.batch_id)}"
        if kind == "keys":
            return self._keys(registry.table(name))
        table, place = registry.table(name), self._place(name)
        has_batch = any(column.name == "arrival_batch" for column in table.columns)
        if kind == "all" or self.batch_id is None or not has_batch:
            return place
        batches = (self.batch_id,) if kind == "own" else self._near
        return f"(SELECT * FROM {place} WHERE arrival_batch IN ({', '.join(map(quoted, batches))}))"

    def _place(self, name: str) -> str:
        schemas = registry.table(name).schemas
        return f"{self.schema if self.schema in schemas else schemas[0]}.{name}"

    def _touched(self, key: str) -> str:
        if self.batch_id is None:
            return f"SELECT {key} FROM {{all.dicom_{key.removesuffix('_key')}}}"
        return {
            "series_key": "SELECT DISTINCT series_key FROM {own.dicom_instance}",
            "study_key": """SELECT DISTINCT study_key FROM {all.dicom_series}
                WHERE series_key IN ({touched.series_key})""",
            "patient_key": """SELECT DISTINCT patient_key FROM {all.dicom_study}
                WHERE study_key IN ({touched.study_key})""",
        }[key]

    def _prepare(self, name: str, sql: str) -> None:
        """Make a table that several rules read, once."""
        self.lake.rows(f"CREATE OR REPLACE TEMP TABLE {name.removeprefix('temp.')} AS {self.sql(sql)}")
        self._prepared.add(name)

    def _keys(self, table: Table) -> str:
        """Keys and versions of a table's near rows, read once for all rules: every scan of a lake's table costs."""
        if self.batch_id is None:
            return self._resolve("all", table.name)
        name = f"temp.quality_keys_{table.name}"
        if name not in self._prepared:
            columns = ", ".join((*table.key, "arrival_batch", "row_version"))
            self._prepare(name, f"SELECT {columns} FROM {{near.{table.name}}}")
        return name

    def _slices(self) -> str:
        """The slices of the touched series, each with the one before it: the steps of the view, of these series."""
        steps, end, _ = view_sql("series_volume_geometry", "SCHEMA").partition(_SLICES_END)
        assert end, "the view has lost the line up to which the rules read it"
        steps = re.sub(r"\bSCHEMA\.(\w+)", r"{near.\1}", steps).replace(
            "{near.dicom_instance}",
            "(SELECT * FROM {near.dicom_instance} WHERE series_key IN ({touched.series_key}))",
        )
        return f"{steps}) {_SLICE_ROWS}"


def evaluate(scope: Scope, rules: Iterable[Rule]) -> list[Finding]:
    """Look at rules one after the other.

    A rule of severity WARNING that cannot be looked at, because the data provoke an error in its SQL, is a finding of
    its own: it must not hold the batch.

    Raises:
        duckdb.Error: a rule of severity ERROR cannot be looked at.
    """
    return [_evaluate(scope, rule) for rule in rules]


def count_violations(lake: Lake, schema: str, batch_id: str | None = None) -> dict[str, int]:
    """Rows breaking a structural rule, by its name: keys occur once, every child has its parent. Empty is good.

    Args:
        lake: the lake.
        schema: ``silver`` or ``deid``.
        batch_id: look at the rows of this batch only, so that one bad batch does not hold the others; None: at all.
    """
    scope = Scope(lake, schema, batch_id)
    rules = [rule for rule in structural_rules(schema) if scope.checked(rule.table)]
    broken = {rule.name: scope.count(f"({scope.sql(rule.sql)})") for rule in rules}
    return {name: rows for name, rows in broken.items() if rows}


def count_placed(lake: Lake, batch_id: str) -> tuple[int, int, int]:
    """Parsed objects of a batch, those placed as instances (also vanished ones), and those refused with an issue."""
    ((parsed, placed, refused),) = lake.rows(
        """SELECT (SELECT count(*) FROM bronze.dicom_header WHERE arrival_batch = $batch),
            (SELECT count(*) FROM silver.dicom_file_location WHERE arrival_batch = $batch),
            (SELECT count(DISTINCT object_key) FROM bronze.ingest_issue
                WHERE arrival_batch = $batch AND stage = 'MAP' AND severity = 'ERROR')""",
        {"batch": batch_id},
    )
    return int(str(parsed)), int(str(placed)), int(str(refused))


def _evaluate(scope: Scope, rule: Rule) -> Finding:
    lake = scope.lake
    try:
        checked = scope.checked(rule.table)
        if not checked:
            return Finding(rule, checked, failed=0, rows=0)
        lake.rows(f"CREATE OR REPLACE TEMP TABLE quality_broken AS {scope.sql(rule.sql)}")
        rows = scope.count("temp.quality_broken")
        if not rows:
            return Finding(rule, checked, failed=0, rows=0)
        offenders = lake.query(f"SELECT * FROM temp.quality_broken ORDER BY ALL LIMIT {MOST_OFFENDERS}")
        key = [name for name in registry.table(rule.table).key if name in offenders.column_names]
        failed = scope.count(f"(SELECT DISTINCT {', '.join(key)} FROM temp.quality_broken)")
    except duckdb.Error as error:
        if rule.severity is Severity.ERROR:
            raise
        return Finding(rule, 0, 0, 0, error=type(error).__name__)
    return Finding(rule, checked, failed, rows, tuple(offenders.to_pylist()))


def _near_batches(lake: Lake, schema: str, batch_id: str) -> tuple[str, ...]:
    """The batch, and those with images of its studies or other contents of its SOP Instance UIDs."""
    rows = lake.rows(
        f"""WITH own AS (
            SELECT study_key, uid_key, instance_key FROM {schema}.dicom_file_location WHERE arrival_batch = ?)
        SELECT DISTINCT arrival_batch FROM {schema}.dicom_file_location
        WHERE study_key IN (SELECT study_key FROM own) OR uid_key IN (SELECT uid_key FROM own)
            OR instance_key IN (SELECT instance_key FROM own)""",
        [batch_id],
    )
    return tuple(sorted({batch_id, *(str(batch) for (batch,) in rows)}))


_SLICE_ROWS = """
SELECT series_key, volume_index, instance_key, frame_number, turned, step,
    median(step) FILTER (step >= 0.01) OVER (PARTITION BY series_key, volume_index) AS usual,
    lag(instance_key) OVER stacked AS previous_instance_key,
    first_value(instance_key) OVER stacked AS first_instance_key,
    sqrt(pow(across - lag(across) OVER stacked, 2) + pow(down - lag(down) OVER stacked, 2)) AS shift
FROM counted WINDOW stacked AS (PARTITION BY series_key, volume_index ORDER BY depth, instance_key, frame_number)
"""
"""Distances are in mm: ``step`` along the normal, ``shift`` across it, each from the slice before."""
