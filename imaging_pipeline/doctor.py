"""Is this installation fit to work? Each finding is OK, or says what to do. Changes nothing but a probe file."""

from __future__ import annotations

import importlib.metadata
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb
import numpy as np

from imaging_pipeline.errors import ConfigurationError, ImagingError
from imaging_pipeline.lake.store import load_extension
from imaging_pipeline.objects.opening import access_of, open_source
from imaging_pipeline.objects.s3 import S3Access
from imaging_pipeline.settings import Settings
from imaging_pipeline.sources import SourceConfig

MINIMUM_PYTHON = (3, 11)

MINIMUM_FREE_BYTES = 5_000_000_000
"""Room for a batch's originals, their de-identified copies and tensors."""

PACKAGES = ("dagster", "dagster-webserver", "dagster-duckdb", "duckdb", "pydicom", "pyarrow", "torch", "mlflow")

EXTENSIONS = ("ducklake", "sqlite_scanner", "postgres_scanner")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: ``advice`` is empty when it is in order."""

    subject: str
    detail: str
    advice: str = ""

    @property
    def is_ok(self) -> bool:
        """Nothing is to be done."""
        return not self.advice


def examine(settings: Settings) -> Iterator[Finding]:
    """All findings, cheap ones first."""
    yield _python()
    yield from (_package(name) for name in PACKAGES)
    yield from _decoders()
    yield from (_extension(name) for name in EXTENSIONS)
    yield _home(settings)
    yield _disk(settings)
    yield _privacy(settings)
    yield _attempt("master key", lambda: f"{len(settings.master_key())} bytes", "imaging-pipeline key create")
    yield _attempt("de-identification profile", lambda: _profile(settings), "correct the profile file")
    yield _attempt("text detector", _detector, "reinstall rapidocr-onnxruntime")
    yield from (examine_source(settings, config) for config in settings.sources)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    is_new_enough = sys.version_info >= MINIMUM_PYTHON
    return Finding("Python", version, "" if is_new_enough else "install Python 3.11 or newer")


def _package(name: str) -> Finding:
    try:
        return Finding(f"package {name}", importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(f"package {name}", "missing", "pip install -r requirements.lock")


def _decoders() -> Iterator[Finding]:
    """A tiny frame of each compressed form is decoded: a library that loads may still not know one."""
    from imaging_pipeline.dicom.decoder_samples import try_decoders  # noqa: PLC0415 - loads the codecs

    for trial in try_decoders():
        if trial.is_decoded:
            yield Finding(f"decoder {trial.form}", "decodes its sample")
        else:
            yield Finding(
                f"decoder {trial.form}", "none: such images become issues", "pip install -r requirements.lock"
            )


def _extension(name: str) -> Finding:
    with duckdb.connect() as connection:
        return _attempt(f"DuckDB extension {name}", lambda: _load(connection, name), "pip install -r requirements.lock")


def _load(connection: duckdb.DuckDBPyConnection, name: str) -> str:
    load_extension(connection, name)
    return f"loaded (DuckDB {duckdb.__version__})"


def _home(settings: Settings) -> Finding:
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=settings.home, prefix=".probe"):
            return Finding("home", f"{settings.home} can be written")
    except OSError as error:
        return Finding("home", f"{settings.home}: {error.strerror}", "set IMAGING_PIPELINE_HOME to a folder you own")


def _disk(settings: Settings) -> Finding:
    if not settings.home.exists():
        return Finding("disk", "unknown: the home folder is missing", "see home")
    free = shutil.disk_usage(settings.home).free
    advice = "" if free >= MINIMUM_FREE_BYTES else f"free up space: {MINIMUM_FREE_BYTES / 1e9:.0f} GB are wanted"
    return Finding("disk", f"{free / 1e9:.1f} GB free", advice)


def _privacy(settings: Settings) -> Finding:
    """The folders of the vault and of the identified lake are for their owner alone."""
    folders = [folder for folder in (settings.home / "vault", settings.home / "identified") if folder.exists()]
    open_ones = [folder for folder in folders if stat.S_IMODE(folder.stat().st_mode) & 0o077]
    if open_ones:
        names = " ".join(str(folder) for folder in open_ones)
        return Finding("permissions", "patient data can be read by others", f"chmod -R go-rwx {names}")
    return Finding("permissions", "patient data is for its owner alone" if folders else "no patient data yet")


def _detector() -> str:
    from imaging_pipeline.deid.pixels.detector import find_lines  # noqa: PLC0415 - loads the networks

    try:
        find_lines(np.zeros((64, 64), np.uint8), zoom=1.0, least=0.5)
    except (ImportError, OSError):
        raise ConfigurationError("pip install rapidocr-onnxruntime; it needs libGL: apt-get install libgl1") from None
    return "reads frames"


def _profile(settings: Settings) -> str:
    from imaging_pipeline.deid.profile import load_profile  # noqa: PLC0415 - reads the table of PS3.15

    profile = load_profile(settings.profile)
    return f"{profile.profile_id} {profile.version}"


def examine_source(settings: Settings, config: SourceConfig) -> Finding:
    """Whether a source can be listed now."""
    subject = f"source {config.name}"
    if config == settings.landing_source and not settings.landing.is_dir():
        return Finding(subject, "the landing folder is not there yet; it is made on first use")
    default = S3Access(settings.s3_endpoint_url, settings.s3_region)
    return _attempt(subject, lambda: _first_page(config, default), "mount it, or correct its entry")


def _first_page(config: SourceConfig, default: S3Access) -> str:
    source = open_source(config, access_of(config, default))
    page = next(source.pages(None, datetime.now(UTC)), None)
    objects = len(page.objects) if page else 0
    return f"{config.kind}, {objects}{'' if page is None or page.upto is None else ' or more'} objects"


def _attempt(subject: str, try_it: Callable[[], str], advice: str) -> Finding:
    try:
        return Finding(subject, try_it())
    except ConfigurationError as error:
        return Finding(subject, "not in order", str(error) or advice)
    except ImagingError:
        return Finding(subject, "not in order", advice)
