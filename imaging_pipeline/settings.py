"""One typed settings object. The environment is read here and nowhere else.

Holds paths, limits and names, and finds the master key. Never prints, logs or returns key material except
through :meth:`Settings.master_key`. Contains no DICOM, lake or Dagster code.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.sources import ElementMode, SourceConfig, load_sources

MASTER_KEY_BYTES = 32
"""Length of the master key: 256 bits, the strength of the HMAC-SHA256 and AES-256 keys derived from it."""

MIN_DISTINCT_BYTES = 16
"""A 32-byte key drawn at random has 30 distinct bytes on average; below 16 it was typed, not drawn."""

VERSION_POLICIES = ("keep_last", "keep_first", "keep_both")
"""What becomes current when a SOP Instance UID comes again with other bytes; see ``metadata``."""

SHARD_COMPRESSIONS = ("none", "lz4")
"""How tensor shards are packed; plain ones are mapped into memory, packed ones travel faster."""

RESULT_KINDS = ("all", "reports", "off")
"""What is made of predictions as DICOM objects: reports and pictures, reports alone, or nothing."""

_PREFIX = "IMAGING_PIPELINE_"


@dataclass(frozen=True, slots=True)
class LakeLocation:
    """Where one DuckLake lives.

    Attributes:
        name: ``identified`` or ``research``; also the alias it is attached under.
        catalog: DuckLake's catalog string: ``sqlite:PATH`` or ``postgres:dbname=… host=…``.
        data_path: folder or object-store prefix of the Parquet files.
    """

    name: str
    catalog: str = field(repr=False)  # a Postgres string may hold a password
    data_path: str

    @property
    def sqlite_path(self) -> Path | None:
        """The catalog's file when it is SQLite (writers then take a lock), else None."""
        kind, _, rest = self.catalog.partition(":")
        return Path(rest) if kind == "sqlite" else None


SITE_COLUMNS = "IMAGING_PIPELINE_COLUMNS"
"""Names the file of the site's own columns; the registry is made before there are settings, in every process."""


def site_columns_file(environ: Mapping[str, str] | None = None) -> Path | None:
    """The file of the site's own columns, if there is one."""
    text = (os.environ if environ is None else environ).get(SITE_COLUMNS, "").strip()
    return Path(text).expanduser() if text else None


def secret_of(variable: str) -> str:
    """The secret that an environment variable holds, whose name stands in a configuration file.

    Raises:
        ConfigurationError: the variable is not set.
    """
    secret = os.environ.get(variable, "").strip()
    if not secret:
        raise ConfigurationError(f"the environment variable {variable} is not set; the configuration names it")
    return secret


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that differs between two installations.

    Attributes:
        home: folder of lakes, vault, ledger, models and the Dagster instance.
        sources: what the sensors watch; without a file of sources, the landing folder.
        landing: the landing folder.
        source_name: the landing folder's source, the patient domain of its objects without IssuerOfPatientID.
        project: research project; its pseudonyms cannot be joined with another project's.
        key_epoch: how often the project's keys were changed; another one gives other pseudonyms.
        batch_objects: most objects of one batch.
        batch_bytes: most bytes of one batch.
        batches_per_tick: most batches the sensor announces in one tick.
        tick_seconds: how long a sensor may list in one tick before it stops and goes on in the next.
        minimum_age_seconds: a file younger than this may still be being written and waits.
        elements: which elements of headers become rows of ``dicom_element``: ``all``, ``standard`` or ``off``.
        columns: file of the site's own columns, or None.
        pacs: file of PACS peers, of what is fetched from them and sent to them, or None.
        version_policy: what becomes current when a SOP Instance UID comes again with other bytes.
        study_quiet_seconds: a study without a new image for so long is complete.
        study_limit_seconds: a study is complete after so long even when images still come.
        s3_endpoint_url: of an S3-compatible server; None: AWS.
        s3_region: region of buckets and queues; None: the AWS configuration's.
        workers: processes for parsing, de-identification and decoding.
        profile: de-identification profile: the name of a shipped one, or a file.
        recipe: tensor recipes, each a shipped name or a path, with commas between them; the first is the model's.
        tensor_files: where tensor shards go: a folder, or ``s3://bucket/prefix``.
        shard_bytes: tensors of about so many bytes make one shard.
        shard_compression: how shards are packed: ``none`` or ``lz4``.
        datasets: datasets that are frozen, each a shipped name or a path, with commas between them; the first is the
            model's.
        training: how the network is trained, by shipped name or path.
        results: what is made of predictions as DICOM objects: ``all``, ``reports`` or ``off``.
        lung_model: network that finds the lungs: a file or a MONAI bundle; None: that of the package.
        viewer_compat: whether segmentations of films state a plane by convention, as some viewers need.
        mlflow_tracking_uri: MLflow backend store.
        viewer_files: folder of the OHIF viewer's files, which ``viewer install`` puts there.
        serve_url: where people reach the research zone's service; None: pages of Dagster do not link to it.
        oidc: file that says which OpenID provider the web services believe, or None.
        audit_heads: folder for the heads of the audit logs, best on another disk; None: beside the logs.
    """

    home: Path
    landing: Path
    identified: LakeLocation
    research: LakeLocation
    key_file: Path
    mlflow_tracking_uri: str = field(repr=False)
    sources: tuple[SourceConfig, ...] = ()
    source_name: str = "landing"
    project: str = "research"
    key_epoch: int = 0
    batch_objects: int = 5_000
    batch_bytes: int = 4_000_000_000
    batches_per_tick: int = 10
    tick_seconds: float = 20.0
    minimum_age_seconds: float = 2.0
    elements: str = "all"
    columns: Path | None = None
    pacs: Path | None = None
    version_policy: str = "keep_last"
    study_quiet_seconds: float = 300.0
    study_limit_seconds: float = 3600.0
    s3_endpoint_url: str | None = None
    s3_region: str | None = None
    workers: int = 2
    profile: str = "basic"
    recipe: str = "chest-xray-224"
    tensor_files: str = "tensors"
    shard_bytes: int = 256 << 20
    shard_compression: str = "none"
    datasets: str = "pneumonia"
    training: str = "resnet18-128"
    results: str = "all"
    lung_model: Path | None = None
    viewer_compat: bool = False
    epochs: int | None = None
    viewer_files: Path = Path("viewer")
    serve_url: str | None = None
    oidc: Path | None = None
    audit_heads: Path | None = None
    _key_text: str | None = field(default=None, repr=False)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the ``IMAGING_PIPELINE_*`` variables; unset ones take the defaults for one machine.

        Raises:
            ConfigurationError: a variable is unknown or has a value that cannot be used.
        """
        env = os.environ if environ is None else environ
        read = _Reader(env)
        home = Path(read.text("HOME", ".imaging_pipeline")).expanduser().resolve()
        sources_file = read.text("SOURCES", "")
        settings = cls(
            home=home,
            sources=load_sources(Path(sources_file).expanduser().resolve()) if sources_file else (),
            landing=Path(read.text("LANDING", str(home / "landing"))).expanduser().resolve(),
            identified=_lake(read, home, "identified"),
            research=_lake(read, home, "research"),
            key_file=Path(read.text("KEY_FILE", str(home / "vault" / "master.key"))).expanduser(),
            mlflow_tracking_uri=read.text("MLFLOW_URI", f"sqlite:///{home / 'research' / 'mlflow' / 'mlflow.db'}"),
            source_name=read.text("SOURCE", "landing"),
            project=read.text("PROJECT", "research"),
            key_epoch=read.positive("KEY_EPOCH", 0),
            batch_objects=read.positive("BATCH_OBJECTS", 5_000),
            batch_bytes=read.positive("BATCH_BYTES", 4_000_000_000),
            batches_per_tick=read.positive("BATCHES_PER_TICK", 10),
            tick_seconds=read.seconds("TICK_SECONDS", 20.0),
            minimum_age_seconds=read.seconds("MINIMUM_AGE_SECONDS", 2.0),
            elements=read.choice("ELEMENTS", tuple(ElementMode)),
            columns=site_columns_file(env) if read.text("COLUMNS", "") else None,
            pacs=read.path("PACS"),
            version_policy=read.choice("VERSION_POLICY", VERSION_POLICIES),
            study_quiet_seconds=read.seconds("STUDY_QUIET_SECONDS", 300.0),
            study_limit_seconds=read.seconds("STUDY_LIMIT_SECONDS", 3600.0),
            s3_endpoint_url=read.text("S3_ENDPOINT_URL", "") or None,
            s3_region=read.text("S3_REGION", "") or None,
            workers=read.positive("WORKERS", os.cpu_count() or 1),
            profile=read.text("DEID_PROFILE", "basic"),
            recipe=read.text("RECIPE", "chest-xray-224"),
            tensor_files=_place(read.text("TENSOR_FILES", str(home / "research" / "tensors"))),
            shard_bytes=read.positive("SHARD_BYTES", 256 << 20),
            shard_compression=read.choice("SHARD_COMPRESSION", SHARD_COMPRESSIONS),
            datasets=read.text("DATASETS", "pneumonia"),
            training=read.text("TRAINING", "resnet18-128"),
            epochs=read.positive("EPOCHS", 0) or None,
            results=read.choice("RESULTS", RESULT_KINDS),
            lung_model=read.path("LUNG_MODEL"),
            viewer_compat=read.choice("VIEWER_COMPAT", ("off", "on")) == "on",
            viewer_files=read.path("OHIF") or home / "viewer",
            serve_url=read.text("SERVE_URL", "").rstrip("/") or None,
            oidc=read.path("OIDC"),
            audit_heads=read.path("AUDIT_HEADS"),
            _key_text=read.text("MASTER_KEY", "") or None,
        )
        read.refuse_unknown()
        settings.refuse_contradictions()
        return settings if settings.sources else replace(settings, sources=(settings.landing_source,))

    def refuse_contradictions(self) -> None:
        """Refuse values that are legal alone and cannot be meant.

        Raises:
            ConfigurationError: naming the settings.
        """
        if not re.fullmatch(r"[A-Za-z0-9_]+", self.source_name):
            raise ConfigurationError(f"{_PREFIX}SOURCE must be made of letters, digits and underscores")
        if self.study_limit_seconds < self.study_quiet_seconds:
            raise ConfigurationError(f"{_PREFIX}STUDY_LIMIT_SECONDS must not be less than {_PREFIX}STUDY_QUIET_SECONDS")
        for name, url in (("S3_ENDPOINT_URL", self.s3_endpoint_url), ("SERVE_URL", self.serve_url)):
            if url and not re.fullmatch(r"https?://[^@/\s]+/?", url):
                raise ConfigurationError(f"{_PREFIX}{name} must be http(s)://host[:port], without credentials")

    @property
    def landing_source(self) -> SourceConfig:
        """The landing folder as a source."""
        return SourceConfig(self.source_name, str(self.landing), minimum_age_seconds=self.minimum_age_seconds)

    @property
    def ledger_path(self) -> Path:
        """SQLite file of what has been seen and how it was cut into batches."""
        return self.home / "identified" / "ledger.sqlite"

    @property
    def vault_path(self) -> Path:
        """SQLite file of the encrypted crosswalk, one for each epoch of the keys."""
        return self.home / "vault" / (f"vault-{self.key_epoch}.sqlite" if self.key_epoch else "vault.sqlite")

    @property
    def decisions_path(self) -> Path:
        """File of what people decided about held pixels."""
        return self.home / "vault" / "decisions.yaml"

    def access_files(self, zone: str) -> Path:
        """Folder of users, service key and audit log of a zone, ``research`` or ``clinical``, on its own side."""
        return self.home / ("research" if zone == "research" else "identified") / "access"

    @property
    def clearance_files(self) -> Path:
        """Folder of the marks that checks leave for batches that may be shown and sent."""
        return self.home / "research" / "cleared"

    @property
    def evidence_files(self) -> Path:
        """Pages of evidence, one for each batch; they name no original."""
        return self.home / "research" / "evidence"

    @property
    def deid_files(self) -> Path:
        """Folder of the de-identified DICOM files."""
        return self.home / "research" / "files"

    @property
    def research_results(self) -> Path:
        """Folder of what is made of predictions about released images."""
        return self.home / "research" / "results"

    @property
    def identified_results(self) -> Path:
        """Folder of what is made of predictions about originals, to be sent back."""
        return self.home / "identified" / "results"

    @property
    def segmentation_files(self) -> Path:
        """Folder of the segmentations made of released films."""
        return self.home / "research" / "segmentations"

    @property
    def annotation_files(self) -> Path:
        """Folder of what people have drawn, measured or written on released studies and sent back."""
        return self.home / "research" / "annotations"

    @property
    def tensor_cache(self) -> Path:
        """Folder of local copies of tensor shards that lie in a bucket."""
        return self.home / "research" / "tensor_cache"

    @property
    def mlflow_artifacts(self) -> Path:
        """Folder of MLflow's artifacts."""
        return self.home / "research" / "mlflow" / "artifacts"

    @property
    def dagster_home(self) -> Path:
        """Dagster's instance folder (its ``DAGSTER_HOME``)."""
        return self.home / "dagster"

    def master_key(self) -> bytes:
        """The 32-byte master key, from ``IMAGING_PIPELINE_MASTER_KEY`` or the key file.

        Raises:
            ConfigurationError: it is missing, malformed, weak, or its file can be read by others.
        """
        if self._key_text is not None:
            return _decode_key(self._key_text, f"{_PREFIX}MASTER_KEY")
        if not self.key_file.is_file():
            raise ConfigurationError(
                f"no master key: set {_PREFIX}MASTER_KEY to 32 random bytes in base64 "
                f"(openssl rand -base64 32), or run 'imaging-pipeline key create'"
            )
        mode = stat.S_IMODE(self.key_file.stat().st_mode)
        if mode & 0o077:
            raise ConfigurationError(
                f"the key file can be read by others (mode {mode:04o}): run chmod 600 {self.key_file}"
            )
        return _decode_key(self.key_file.read_text(encoding="ascii", errors="replace"), "the key file")

    def with_key_file(self, path: Path) -> Settings:
        """The same with another key file, whatever the environment says."""
        return replace(self, key_file=path.expanduser(), _key_text=None)

    def create_key_file(self) -> bool:
        """Write a new random master key readable by its owner alone; False when there is one already."""
        if self._key_text is not None or self.key_file.exists():
            return False
        self.key_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        text = base64.b64encode(secrets.token_bytes(MASTER_KEY_BYTES)).decode() + "\n"
        # Written aside and linked into place: a kill leaves no half key, and two creators cannot both win.
        partial = self.key_file.with_name(f".{self.key_file.name}.{os.getpid()}")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            os.link(partial, self.key_file)
        except FileExistsError:
            return False
        finally:
            partial.unlink(missing_ok=True)
        return True


def _place(location: str) -> str:
    """A folder, as an absolute path, or ``s3://bucket/prefix``.

    Raises:
        ConfigurationError: another kind of place.
    """
    if "://" not in location:
        return str(Path(location).expanduser().resolve())
    if not re.fullmatch(r"s3://[^/]+/[^/].*", location):
        raise ConfigurationError(f"{_PREFIX}TENSOR_FILES must be a folder or s3://bucket/prefix")
    return location


def _lake(read: _Reader, home: Path, name: str) -> LakeLocation:
    root = home / name / "lake"
    return LakeLocation(
        name=name,
        catalog=read.text(f"{name.upper()}_CATALOG", f"sqlite:{root / 'catalog.sqlite'}"),
        data_path=read.text(f"{name.upper()}_DATA_PATH", f"{root / 'data'}/"),
    )


def _decode_key(text: str, where: str) -> bytes:
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        raise ConfigurationError(f"{where} is not base64; make one with: openssl rand -base64 32") from None
    if len(key) != MASTER_KEY_BYTES:
        raise ConfigurationError(f"{where} has {len(key)} bytes, expected {MASTER_KEY_BYTES}: openssl rand -base64 32")
    if len(set(key)) < MIN_DISTINCT_BYTES:
        raise ConfigurationError(f"{where} is not random enough to protect patients; openssl rand -base64 32 makes one")
    return key


class _Reader:
    """Reads prefixed variables and remembers which were asked for, so that misspelt ones can be refused."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self._known: set[str] = set()

    def text(self, name: str, default: str) -> str:
        self._known.add(_PREFIX + name)
        return self._env.get(_PREFIX + name, "").strip() or default

    def path(self, name: str) -> Path | None:
        text = self.text(name, "")
        return Path(text).expanduser().resolve() if text else None

    def positive(self, name: str, default: int) -> int:
        value = self.text(name, str(default))
        if not value.isdecimal() or (int(value) < 1 and int(value) != default):
            raise ConfigurationError(f"{_PREFIX}{name} must be a whole number above 0")
        return int(value)

    def choice(self, name: str, allowed: tuple[str, ...]) -> str:
        """One of the allowed words; the first is the default."""
        value = self.text(name, allowed[0])
        if value not in allowed:
            raise ConfigurationError(f"{_PREFIX}{name} must be one of {', '.join(allowed)}")
        return value

    def seconds(self, name: str, default: float) -> float:
        value = self.text(name, str(default))
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0 <= number < float("inf"):
            raise ConfigurationError(f"{_PREFIX}{name} must be a number of seconds, 0 or more")
        return number

    def refuse_unknown(self) -> None:
        unknown = sorted(name for name in self._env if name.startswith(_PREFIX) and name not in self._known)
        if unknown:
            known = ", ".join(sorted(self._known))
            raise ConfigurationError(f"unknown setting {', '.join(unknown)}; known are {known}")
