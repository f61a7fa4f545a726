"""An earlier state of a lake, beside the present one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import duckdb

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.lake.store import Lake, quoted
from imaging_pipeline.settings import LakeLocation

_numbers = itertools.count()


@contextmanager
def at_snapshot(lake: Lake, snapshot_id: int) -> Iterator[Lake]:
    """The lake as it was at a snapshot, to be read.

    Raises:
        ConfigurationError: the lake does not have that snapshot any more.
    """
    ((catalog,),) = lake.rows("SELECT path FROM duckdb_databases() WHERE database_name = ?", [lake.name])
    location = LakeLocation(f"{lake.name}_{snapshot_id}_{next(_numbers)}", str(catalog), "")
    with lake.connection.cursor() as connection:
        try:
            options = f"READ_ONLY, SNAPSHOT_VERSION {snapshot_id}"
            connection.execute(f"ATTACH {quoted(f'ducklake:{catalog}')} AS {location.name} ({options})")
        except duckdb.Error as error:
            # The message may quote the catalog string, which may hold a password.
            raise ConfigurationError(
                f"snapshot {snapshot_id} of the {lake.name} lake cannot be read ({type(error).__name__}): "
                "it was expired, or the lake was made anew"
            ) from None
        try:
            yield Lake(connection, location)
        finally:
            connection.execute(f"USE {lake.name}")
            with suppress(duckdb.Error):  # a result that is still being read keeps it until the process ends
                connection.execute(f"DETACH {location.name}")
