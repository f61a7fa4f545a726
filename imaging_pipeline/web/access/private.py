"""Files that are for the user alone who runs the service: its folder and its key."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.settings import Settings

KEY_BYTES: Final = 32
"""Length of the service key: 256 bits."""


def private_folder(folder: Path) -> None:
    """Make a folder for its owner alone.

    Raises:
        ConfigurationError: it is there, and others can use it, or it cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise ConfigurationError(f"the folder of users and audit log cannot be made ({error.strerror})") from None
    if status.st_mode & 0o077 or status.st_uid != os.geteuid():
        raise ConfigurationError(
            f"{folder} holds users and the audit log: it must belong to who runs the service, with mode 0700 "
            f"(it has {stat.S_IMODE(status.st_mode):04o})"
        )


def access_folder(settings: Settings, zone: str) -> Path:
    """The folder of users, service key and audit log of a zone, made on its own side when it is missing.

    Raises:
        ConfigurationError: as `private_folder`.
    """
    folder = settings.access_files(zone)
    folder.parent.mkdir(mode=0o755 if zone == "research" else 0o700, parents=True, exist_ok=True)
    private_folder(folder)
    return folder


def private_file(path: Path) -> None:
    """Make a file with its final permissions before SQLite opens it; its side files get them too."""
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600))


def service_key(path: Path) -> bytes:
    """The key of a service, drawn at the first call.

    Raises:
        ConfigurationError: others can read the file, or it is no key.
    """
    if not path.exists():
        _draw_key(path)
    if path.stat().st_mode & 0o077:
        raise ConfigurationError(f"the service key can be read by others: run chmod 600 {path}")
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise ConfigurationError(
            f"the service key has {len(key)} bytes, expected {KEY_BYTES}: restore it from a backup; without it the "
            "audit log cannot be verified"
        )
    return key


def derived_key(key: bytes, purpose: str) -> bytes:
    """A key for one purpose (HKDF-SHA256, RFC 5869)."""
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=purpose.encode()).derive(key)


def _draw_key(path: Path) -> None:
    """Written aside and linked into place: a kill leaves no half key, and of two creators one wins."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(secrets.token_bytes(KEY_BYTES))
            stream.flush()
            os.fsync(stream.fileno())
        if not path.exists():
            path.hardlink_to(part)
    except FileExistsError:
        return
    finally:
        part.unlink(missing_ok=True)
