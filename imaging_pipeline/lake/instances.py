"""DuckDB instances that this process keeps: each has one lake attached, ready for the next step.

Loading DuckDB's extensions and comparing a lake with the registry take most of a second; a process does it once for
each lake and not for every step. Instances share nothing: what one spills to disk stays in the zone of its lake.
"""

from __future__ import annotations

import atexit
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

import duckdb

from imaging_pipeline.lake.store import Lake, attach
from imaging_pipeline.settings import LakeLocation

MOST_KEPT = 4
"""Both lakes, to be written and to be read; of more the one used longest ago is let go."""

Connect = Callable[[], AbstractContextManager[duckdb.DuckDBPyConnection]]
"""Makes a new instance, in memory, and a connection to it."""

_Key = tuple[LakeLocation, bool, int | None]


@dataclass(frozen=True, slots=True)
class _Kept:
    connection: duckdb.DuckDBPyConnection
    owned: ExitStack
    catalog_file: tuple[int, int] | None


_kept: OrderedDict[_Key, _Kept] = OrderedDict()
_lock = threading.Lock()


@contextmanager
def open_lake(
    location: LakeLocation,
    connect: Connect,
    *,
    read_only: bool,
    threads: int | None,
    on_open: Callable[[Lake], object],
) -> Iterator[Lake]:
    """A lake, on a connection of its own to an instance that has it attached.

    Args:
        location: the lake.
        connect: makes an instance when none is kept.
        read_only: whether the lake cannot be written.
        threads: threads of one query; None: one for each core.
        on_open: called with the lake when an instance attaches it to be written.

    Raises:
        ConfigurationError: the lake cannot be opened, or is opened read-only before it exists.
        TransientError: another writer holds it too long.
    """
    key = (location, read_only, threads)
    with _lock:
        kept = _kept.pop(key, None)
        if kept is not None and kept.catalog_file != _catalog_file(location):
            kept.owned.close()  # the lake was removed, and maybe made anew
            kept = None
        _kept[key] = kept or _opened(location, connect, read_only=read_only, threads=threads, on_open=on_open)
        connection = _kept[key].connection.cursor()
        while len(_kept) > MOST_KEPT:
            _kept.popitem(last=False)[1].owned.close()
    with connection:
        yield Lake(connection, location)


def _opened(
    location: LakeLocation,
    connect: Connect,
    *,
    read_only: bool,
    threads: int | None,
    on_open: Callable[[Lake], object],
) -> _Kept:
    with ExitStack() as stack:
        connection = stack.enter_context(connect())
        stack.callback(connection.close)
        if threads is not None:
            connection.execute(f"SET threads = {threads}")
        lake = attach(connection, location, read_only=read_only)
        if not read_only:
            on_open(lake)
        return _Kept(connection, stack.pop_all(), _catalog_file(location))


def _catalog_file(location: LakeLocation) -> tuple[int, int] | None:
    path = location.sqlite_path
    if path is None or not path.exists():
        return None
    status = path.stat()
    return status.st_dev, status.st_ino


@atexit.register
def _close_all() -> None:
    while _kept:
        _kept.popitem()[1].owned.close()
