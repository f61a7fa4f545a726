"""Installing the OHIF viewer: its published package, proved by its digest, unpacked for the path it is served at.

The package is fetched by npm's own client, or given as a file where there is no network.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from imaging_pipeline.errors import ConfigurationError, TransientError
from imaging_pipeline.web.addresses import VIEWER

PACKAGE: Final = "@ohif/app"
VERSION: Final = "3.13.2"
FILE_NAME: Final = f"ohif-app-{VERSION}.tgz"
INTEGRITY: Final = "WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="
"""SHA-512 of the package in base64, as the registry states it (Subresource Integrity)."""

CONTENT: Final = "package/dist/"
"""The part of the package that a browser needs."""

NPM_SECONDS: Final = 600
_BLOCK: Final = 1 << 20

_ROOTS: Final = {
    ".html": re.compile(rb'((?:href|src|content|window\.PUBLIC_URL)=")/(?!/)'),
    ".js": re.compile(rb'(\b__webpack_require__\.p = ")/(?=";)'),
    ".css": re.compile(rb"(\burl\()/(?!/)"),
}
"""The package is built for the root of a server; these are the places, by kind of file, that say so."""


def installed_viewer(folder: Path) -> Path | None:
    """The folder of the viewer's files below ``folder``, if this version is installed there."""
    files = folder / VERSION
    return files if (files / "index.html").is_file() else None


def install_viewer_files(folder: Path, package: Path | None = None) -> Path:
    """Put the viewer's files below a folder; what is there already stays.

    Args:
        folder: where versions of the viewer lie.
        package: the package as a file; None: npm fetches it.

    Returns:
        The folder of the files.

    Raises:
        ConfigurationError: the package is not the one whose digest is known, or npm is missing.
        TransientError: npm could not fetch it.
    """
    if found := installed_viewer(folder):
        return found
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".install-", dir=folder) as work:
        archive = package or _fetched(Path(work))
        _require_integrity(archive)
        unpacked = Path(work) / "files"
        _unpack(archive, unpacked)
        try:
            unpacked.rename(folder / VERSION)
        except OSError:
            if installed_viewer(folder) is None:  # else another process was faster
                raise
    return folder / VERSION


def _fetched(work: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise ConfigurationError(
            f"npm is not installed: install it, or fetch {FILE_NAME} elsewhere and give --from FILE"
        )
    command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--pack-destination", str(work), "--ignore-scripts", "--silent"]
    try:
        done = subprocess.run(  # noqa: S603 - no part of the command comes from outside
            command, cwd=work, timeout=NPM_SECONDS, capture_output=True, check=False
        )
    except subprocess.TimeoutExpired:
        raise TransientError(f"npm has not fetched {PACKAGE} in {NPM_SECONDS} s") from None
    if done.returncode or not (work / FILE_NAME).is_file():
        raise TransientError(f"npm could not fetch {PACKAGE} {VERSION} (exit status {done.returncode})")
    return work / FILE_NAME


def _require_integrity(archive: Path) -> None:
    digest = hashlib.sha512()
    try:
        with archive.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    except OSError:
        raise ConfigurationError("the viewer's package cannot be read") from None
    if base64.b64encode(digest.digest()).decode() != INTEGRITY:
        raise ConfigurationError(f"this file is not {PACKAGE} {VERSION}: its SHA-512 differs; nothing was installed")


def _unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive, "r:gz") as package:
        for member in package:
            if member.isfile() and member.name.startswith(CONTENT):
                member.name = member.name.removeprefix(CONTENT)
                package.extract(member, folder, filter="data")
    for path in folder.rglob("*"):
        if path.suffix in _ROOTS:
            data = path.read_bytes()
            moved = _ROOTS[path.suffix].sub(rb"\g<1>" + VIEWER.encode(), data)
            if moved != data:
                path.write_bytes(moved)
