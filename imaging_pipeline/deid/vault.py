"""The crosswalk from pseudonyms back to originals, encrypted, in one SQLite file of its own.

Owns the vault file, its permissions and its records. Contains no keys: it holds what `ProjectKeys.seal` made and opens
only with the keys of the same project. Several processes of one machine may write at once (WAL); a network file system
is no place for it.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from imaging_pipeline.deid.engine import Deidentified
from imaging_pipeline.deid.pseudonyms import ProjectKeys
from imaging_pipeline.errors import ConfigurationError, TransientError
from imaging_pipeline.sqlite import connect, transaction

KINDS: Final = ("PATIENT", "ACCESSION", "UID")
"""What a crosswalk entry may be about."""

_SEPARATOR: Final = "\0"
_CHECK: Final = "vault"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS crosswalk (
    kind TEXT NOT NULL, pseudonym TEXT NOT NULL, sealed BLOB NOT NULL, PRIMARY KEY (kind, pseudonym)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS seal (name TEXT PRIMARY KEY, sealed BLOB NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class CrosswalkEntry:
    """One pseudonym and what it stands for; the representation does not show the original."""

    kind: str
    pseudonym: str
    original: str = field(repr=False)


def crosswalk_of(released: Deidentified) -> list[CrosswalkEntry]:
    """The entries of one released object: its patient and accession numbers, with their domain, and replaced UIDs."""
    domain = released.patient_domain
    entries = [CrosswalkEntry("PATIENT", released.patient_id, f"{domain}\x1f{released.original_patient_id}")]
    numbers = released.accession_map.items()
    entries += [CrosswalkEntry("ACCESSION", new, f"{domain}\x1f{original}") for original, new in numbers]
    return entries + [CrosswalkEntry("UID", new, original) for original, new in released.uid_map.items()]


class Vault:
    """The crosswalk of one project."""

    __slots__ = ("_keys", "_path")

    def __init__(self, path: Path, keys: ProjectKeys) -> None:
        """Open the vault at ``path``, making it (0600) and its folder (0700) when they are missing.

        Raises:
            ConfigurationError: others can get at folder or file, or the vault was made with another key.
        """
        self._path = path
        self._keys = keys
        _private_folder(path.parent)
        _private_file(path)
        with self._connected() as connection:
            connection.executescript(_SCHEMA)
            connection.execute("INSERT OR IGNORE INTO seal VALUES (?, ?)", (_CHECK, keys.seal(keys.project)))
            connection.commit()
            (sealed,) = connection.execute("SELECT sealed FROM seal WHERE name = ?", (_CHECK,)).fetchone()
        keys.unseal(sealed)

    @property
    def path(self) -> Path:
        """The vault's file."""
        return self._path

    def record(self, entries: Iterable[CrosswalkEntry]) -> None:
        """Add entries, all or none; an entry that is there already stays as it is.

        Raises:
            ValueError: an entry's kind is not one of `KINDS`.
            ConfigurationError: a pseudonym stands for another patient or accession number already.
            TransientError: the file is locked by another process for too long, or the disk refuses.
        """
        wanted = list(entries)
        rows = [(entry.kind, entry.pseudonym, self._sealed(entry)) for entry in wanted]
        numbers = {entry for entry in wanted if entry.kind != "UID"}
        with self._connected() as connection, transaction(connection):
            self._refuse_second(connection, numbers)
            connection.executemany("INSERT OR IGNORE INTO crosswalk VALUES (?, ?, ?)", rows)

    def originals(self, kind: str) -> Iterator[tuple[str, str]]:
        """Every ``(pseudonym, original)`` of a kind, by pseudonym: for the key holder only."""
        query = "SELECT pseudonym, sealed FROM crosswalk WHERE kind = ? ORDER BY pseudonym"
        with self._connected() as connection:
            for pseudonym, sealed in connection.execute(query, (kind,)):
                yield pseudonym, self._opened(kind, pseudonym, sealed)

    def original(self, kind: str, pseudonym: str) -> str | None:
        """What ``pseudonym`` stands for, or None when the vault does not know it."""
        query = "SELECT sealed FROM crosswalk WHERE kind = ? AND pseudonym = ?"
        with self._connected() as connection:
            row = connection.execute(query, (kind, pseudonym)).fetchone()
        return self._opened(kind, pseudonym, row[0]) if row else None

    def _refuse_second(self, connection: sqlite3.Connection, numbers: Iterable[CrosswalkEntry]) -> None:
        """Format-preserving pseudonyms of two domains can meet; keyed ones never do."""
        known: dict[tuple[str, str], str] = {}
        for entry in numbers:
            key = (entry.kind, entry.pseudonym)
            if key not in known:
                query = "SELECT sealed FROM crosswalk WHERE kind = ? AND pseudonym = ?"
                row = connection.execute(query, key).fetchone()
                known[key] = self._opened(*key, row[0]) if row else entry.original
            if known[key] != entry.original:
                whose = "patients" if entry.kind == "PATIENT" else "accession numbers"
                raise ConfigurationError(
                    f"two {whose} would get one pseudonym: use keyed pseudonyms (identifiers: pseudonym in the profile)"
                )

    def _sealed(self, entry: CrosswalkEntry) -> bytes:
        if entry.kind not in KINDS:
            raise ValueError(f"crosswalk kind {entry.kind!r}; allowed: {', '.join(KINDS)}")
        return self._keys.seal(_SEPARATOR.join((entry.kind, entry.pseudonym, entry.original)))

    def _opened(self, kind: str, pseudonym: str, sealed: bytes) -> str:
        """The original in ``sealed``, which names its own row: swapped rows do not pass."""
        sealed_kind, sealed_pseudonym, original = self._keys.unseal(sealed).split(_SEPARATOR, 2)
        if (sealed_kind, sealed_pseudonym) != (kind, pseudonym):
            raise ConfigurationError(
                "an entry of the vault has been moved to another pseudonym; restore it from a backup"
            )
        return original

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(connect(self._path)) as connection:
                yield connection
        except sqlite3.OperationalError as error:
            raise TransientError(f"the vault cannot be used now: {error}") from error
        except sqlite3.DatabaseError as error:
            raise ConfigurationError(f"the vault is not a sound SQLite file: {error}") from error


def _private_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _refuse_if_open(folder, folder.stat())


def _private_file(path: Path) -> None:
    """Make the file with its final permissions before SQLite opens it; SQLite gives them to its side files too."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW, 0o600))
    except FileExistsError:
        _refuse_if_open(path, path.lstat())
        if not stat.S_ISREG(path.lstat().st_mode):
            raise ConfigurationError(f"the vault {path} is not a plain file") from None


def _refuse_if_open(path: Path, status: os.stat_result) -> None:
    if status.st_mode & 0o077 and not stat.S_ISLNK(status.st_mode):
        raise ConfigurationError(f"{path} can be used by others (mode {status.st_mode & 0o777:o}); chmod go= {path}")
    if status.st_uid != os.geteuid():
        raise ConfigurationError(f"{path} belongs to another user; the vault must belong to who runs the pipeline")
