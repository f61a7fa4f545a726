"""One DuckLake, attached to a DuckDB connection: transactions, and the few ways of writing rows.

Owns locking, snapshots and idempotent writes. Knows tables only through the registry and no DICOM.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb
import filelock
import pyarrow as pa
from duckdb_extensions import import_extension

from imaging_pipeline.errors import ConfigurationError, TransientError
from imaging_pipeline.lake import registry
from imaging_pipeline.settings import LakeLocation

LOCK_TIMEOUT_SECONDS = 300.0
"""A writer holds the lock for one transaction (seconds); waiting this long means another one hangs."""

BUSY_TIMEOUT_MILLISECONDS = 60_000
"""How long SQLite itself waits for a reader or writer of the catalog."""

STAGED = "staged_rows"
"""Name under which the rows being written can be used in the condition of :meth:`Lake.replace_all`."""

Parameters = Sequence[object] | Mapping[str, object]
"""Values for ``?``, or for ``$name``."""

_BUSY = "database is locked"


class Lake:
    """A DuckLake attached to a connection under its name.

    SQLite admits one writing process, so with a SQLite catalog each transaction holds an inter-process file
    lock; a Postgres catalog needs none.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, location: LakeLocation) -> None:
        self.connection = connection
        self.name = location.name
        self._lock_path = _lock_path(location)
        connection.execute(f"USE {self.name}")

    def query(self, sql: str, parameters: Parameters | None = None) -> pa.Table:
        """The result of a query; table names without a catalog are of the lake the connection was last given to."""
        return self.connection.execute(sql, parameters or []).to_arrow_table()

    def rows(self, sql: str, parameters: Parameters | None = None) -> list[tuple[object, ...]]:
        """As :meth:`query`, as Python tuples."""
        return self.connection.execute(sql, parameters or []).fetchall()

    def snapshot_id(self) -> int:
        """The newest snapshot: what a reader sees now, and can name to see again."""
        ((snapshot,),) = self.connection.execute(
            f"SELECT max(snapshot_id) FROM ducklake_snapshots('{self.name}')"
        ).fetchall()
        return int(snapshot)

    def written_tables(self) -> frozenset[str]:
        """Tables (``schema.table``) that have ever had a committed row: of the others there is nothing to read.

        One look at the catalog. Each look at an empty table costs several, and most batches fill few tables.
        """
        return frozenset(f"{schema}.{table}" for schema, table in self.rows(_WRITTEN.format(lake=self.name)))

    @contextmanager
    def one_snapshot(self) -> Iterator[None]:
        """All that is read inside is of one state of the lake, its catalog read once; temporary tables go after."""
        self.rows("BEGIN")
        try:
            yield
        finally:
            self.rows("ROLLBACK")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside become visible together, or none. Keep parsing and computing outside.

        Raises:
            TransientError: another writer held the lock too long.
        """
        with _locked(self._lock_path):
            self.connection.execute("BEGIN")
            try:
                yield
                self.connection.execute("COMMIT")
            except BaseException as error:
                with suppress(duckdb.Error):  # a failed COMMIT has rolled back already
                    self.connection.execute("ROLLBACK")
                if isinstance(error, duckdb.Error) and _BUSY in str(error):
                    raise TransientError(f"the {self.name} lake is busy") from None
                raise

    def replace_batch(self, schema: str, name: str, rows: pa.Table, batch: str, *, where: str = "true") -> None:
        """Put ``rows`` in the place of whatever the batch wrote before (of the rows that satisfy ``where``)."""
        self.replace_all(schema, name, rows, where=f"arrival_batch = ? AND {where}", parameters=[batch])

    def replace_all(self, schema: str, name: str, rows: pa.Table, *, where: str, parameters: list[object]) -> None:
        """Put ``rows`` in the place of those that satisfy ``where``, which may name the new rows as ``staged_rows``."""
        self.connection.register(STAGED, rows)
        try:
            self.connection.execute(f"DELETE FROM {schema}.{name} WHERE {where}", parameters)
            if rows.num_rows:
                self.connection.execute(f"INSERT INTO {schema}.{name} BY NAME SELECT *, {_NOW} FROM {STAGED}")
        finally:
            self.connection.unregister(STAGED)


_WRITTEN = """
SELECT schema.schema_name, written.table_name
FROM __ducklake_metadata_{lake}.ducklake_table AS written
JOIN __ducklake_metadata_{lake}.ducklake_schema AS schema USING (schema_id)
JOIN __ducklake_metadata_{lake}.ducklake_table_stats USING (table_id)
WHERE written.end_snapshot IS NULL AND schema.end_snapshot IS NULL AND record_count > 0
"""
"""Over the tables of DuckLake's own specification, which sum up what each table has been given."""

_NOW = f"now()::TIMESTAMPTZ AT TIME ZONE 'UTC' AS {registry.LOADED_AT}"


def attach(connection: duckdb.DuckDBPyConnection, location: LakeLocation, *, read_only: bool = False) -> Lake:
    """Attach a lake, creating it and its tables when it is new.

    Raises:
        ConfigurationError: the lake cannot be opened, or is opened read-only before it exists.
    """
    extensions = ["ducklake", "sqlite_scanner" if location.sqlite_path else "postgres_scanner"]
    for extension in extensions:
        load_extension(connection, extension)
    if location.sqlite_path is not None:
        _prepare_folder(location, read_only=read_only)
        # A large query spills rows to disk: into the lake's own zone, not into the working directory.
        connection.execute(f"SET temp_directory = {quoted(str(location.sqlite_path.parent / 'spill'))}")
    options = _attach_options(location, read_only=read_only)
    with _locked(None if read_only else _lock_path(location)):
        try:
            connection.execute(f"ATTACH {quoted('ducklake:' + location.catalog)} AS {location.name} ({options})")
        except duckdb.Error as error:
            if _BUSY in str(error):
                raise TransientError(f"the {location.name} lake is busy") from None
            # The message may quote the catalog string, which may hold a password.
            raise ConfigurationError(f"the {location.name} lake cannot be opened ({type(error).__name__})") from None
    lake = Lake(connection, location)
    if not read_only:
        _create_tables(lake)
    return lake


def load_extension(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    """Load a DuckDB extension: installed already, else from its PyPI wheel, so that no network is needed.

    Raises:
        ConfigurationError: it is in neither place.
    """
    try:
        connection.execute(f"LOAD {name}")
    except duckdb.Error:
        try:
            import_extension(name, con=connection)
            connection.execute(f"LOAD {name}")
        except (duckdb.Error, ImportError, OSError):
            wheel = f"duckdb-extension-{name.replace('_', '-')}"
            raise ConfigurationError(
                f"DuckDB extension {name!r} is missing: pip install {wheel}=={duckdb.__version__}"
            ) from None


def _attach_options(location: LakeLocation, *, read_only: bool) -> str:
    options = ["READ_ONLY"] if read_only else [f"DATA_PATH {quoted(location.data_path)}"]
    if location.sqlite_path is not None:
        # In SQLite's default journal mode one long SELECT stops every writer.
        options += ["META_JOURNAL_MODE 'WAL'", f"META_BUSY_TIMEOUT {BUSY_TIMEOUT_MILLISECONDS}"]
    return ", ".join(options)


def quoted(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def _prepare_folder(location: LakeLocation, *, read_only: bool) -> None:
    path = location.sqlite_path
    assert path is not None
    if read_only and not path.is_file():
        raise ConfigurationError(f"there is no {location.name} lake yet: run 'imaging-pipeline demo' or 'ingest'")
    if not read_only:
        path.parent.mkdir(parents=True, exist_ok=True)
        Path(location.data_path).mkdir(parents=True, exist_ok=True)


def _create_tables(lake: Lake) -> None:
    """Bring a lake in line with the registry: tables and columns it lacks, views that read otherwise."""
    if _missing_statements(lake):
        with lake.transaction():
            for statement in _missing_statements(lake):  # another process may have been faster
                lake.connection.execute(statement)


def _missing_statements(lake: Lake) -> list[str]:
    def known(sql: str) -> set[tuple[str, ...]]:
        return set(lake.connection.execute(sql, [lake.name]).fetchall())

    types = {
        (schema, table, column): kind
        for schema, table, column, kind in known(
            "SELECT schema_name, table_name, column_name, data_type FROM duckdb_columns() WHERE database_name = ?"
        )
    }
    views = known("SELECT schema_name, view_name, comment FROM duckdb_views() WHERE database_name = ?")
    existing = {(schema, table) for schema, table, _ in types}
    statements: list[str] = []
    for schema in (schema for schema, owner in registry.SCHEMA_LAKES.items() if owner == lake.name):
        found = []
        for table in registry.tables_of(schema):
            name = f"{schema}.{table.name}"
            if table.is_view:
                note = f"{table.description} [{_digest(table.ddl(schema))}]"
                if (schema, table.name, note) not in views:
                    found += [table.ddl(schema), f"COMMENT ON VIEW {name} IS {quoted(note)}"]
            elif (schema, table.name) not in existing:
                found += [table.ddl(schema), f"COMMENT ON TABLE {name} IS {quoted(table.description)}"]
            else:
                for column in table.columns:
                    kind = types.get((schema, table.name, column.name))
                    if kind is None:
                        found.append(f'ALTER TABLE {name} ADD COLUMN "{column.name}" {column.sql_type}')
                    elif kind != column.sql_type and not column.sql_type.startswith("STRUCT"):
                        raise ConfigurationError(
                            f"{name}.{column.name} is {kind} in the lake, not {column.sql_type}: "
                            f"give the site's column another name or its old type"
                        )
        statements += [f"CREATE SCHEMA IF NOT EXISTS {schema}", *found] if found else []
    return statements


def _digest(sql: str) -> str:
    return hashlib.sha256(sql.encode()).hexdigest()[:12]


def _lock_path(location: LakeLocation) -> Path | None:
    return None if location.sqlite_path is None else location.sqlite_path.with_suffix(".lock")


@contextmanager
def _locked(path: Path | None) -> Iterator[None]:
    if path is None:
        yield
        return
    try:
        with filelock.FileLock(path, timeout=LOCK_TIMEOUT_SECONDS):
            yield
    except filelock.Timeout:
        raise TransientError(
            f"another process has been writing for {LOCK_TIMEOUT_SECONDS:.0f} s; does a run hang? See the Dagster UI"
        ) from None
