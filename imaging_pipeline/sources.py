"""Where objects come from, as configured: one entry for each source.

A source is also a patient domain: the same PatientID in two sources is two patients. Holds no secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class SourceKind(StrEnum):
    """How a location is listed."""

    FOLDER = "folder"
    BUCKET = "bucket"
    MANIFEST = "manifest"
    DICOMDIR = "dicomdir"


class Deletions(StrEnum):
    """What it means that an object has vanished from its source."""

    TOMBSTONE = "tombstone"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """One source.

    Attributes:
        name: letters, digits and underscores; the patient domain of its objects, and part of its sensor's name.
        location: an absolute path, or ``s3://bucket/prefix``; of a folder, a bucket, a manifest or a DICOMDIR.
        kind: how it is listed.
        include: glob patterns of the path below the location; empty: everything.
        exclude: glob patterns of what is left out, also when it is included.
        minimum_age_seconds: a younger object may still be being written and waits for the next listing.
        follow_links: symbolic links are followed; otherwise neither linked files nor linked folders are taken.
        deletions: whether a vanished object is taken back everywhere.
        endpoint_url: of an S3-compatible server; None: AWS, or the installation's endpoint.
        region: of the bucket and the queue.
        profile: a profile of the shared AWS configuration.
        queue_url: SQS queue of the bucket's notifications; with it, listing is left to the nightly reconcile.
    """

    name: str
    location: str
    kind: SourceKind = SourceKind.FOLDER
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    minimum_age_seconds: float = 2.0
    follow_links: bool = False
    deletions: Deletions = Deletions.TOMBSTONE
    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    queue_url: str | None = None
