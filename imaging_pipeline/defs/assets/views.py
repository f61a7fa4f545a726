"""What nothing materializes: views over the tables of silver and deid, and the dictionary, kept as lakes are opened."""

import dagster as dg

from imaging_pipeline.defs import reporting
from imaging_pipeline.lake import registry

CODE_VERSION = "views-1"

_DICTIONARY = "data_dictionary"


def _specs(schema: str) -> list[dg.AssetSpec]:
    instances = reporting.asset_key(schema, "dicom_instance")
    return [
        reporting.table_spec(
            schema,
            table.name,
            code_version=CODE_VERSION,
            deps=[] if table.name == _DICTIONARY else [instances],
            kinds=("duckdb", "view" if table.is_view else "parquet"),
            is_partitioned=False,
        )
        for table in registry.tables_of(schema)
        if table.is_view or table.name == _DICTIONARY
    ]


specs = [spec for schema in registry.SCHEMA_LAKES for spec in _specs(schema)]
