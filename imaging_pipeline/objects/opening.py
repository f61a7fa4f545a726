"""From a source's configuration to the source: the one place that knows which kind is which class."""

from __future__ import annotations

from imaging_pipeline.objects.dicomdir import Dicomdir
from imaging_pipeline.objects.folder import Folder
from imaging_pipeline.objects.manifest import Manifest
from imaging_pipeline.objects.s3 import S3Access, S3Bucket, read_s3, stat_s3
from imaging_pipeline.objects.source import Source
from imaging_pipeline.sources import SourceConfig, SourceKind


def access_of(config: SourceConfig, default: S3Access) -> S3Access:
    """How a source's store is reached: what the source says, and the installation's access for the rest.

    Args:
        config: the source.
        default: the installation's.
    """
    return S3Access(
        endpoint_url=config.endpoint_url or default.endpoint_url,
        region=config.region or default.region,
        profile=config.profile or default.profile,
    )


def open_source(config: SourceConfig, access: S3Access) -> Source:
    """The source of a configuration. Nothing is listed or asked for yet.

    Args:
        config: the source.
        access: the installation's way to object stores; the source's own settings go before it.
    """
    own = access_of(config, access)
    match config.kind:
        case SourceKind.FOLDER:
            return Folder(config)
        case SourceKind.BUCKET:
            return S3Bucket(config, own)
        case SourceKind.MANIFEST:
            return Manifest(config, lambda uri: stat_s3(own, uri, config.name), lambda uri: read_s3(own, uri))
        case SourceKind.DICOMDIR:
            return Dicomdir(config)
