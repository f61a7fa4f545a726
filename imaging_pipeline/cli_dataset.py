"""The commands below ``imaging-pipeline dataset``: list, freeze, show, rebuild, export.

Reads arguments and prints counts and digests. All of them open the research side only.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imaging_pipeline.settings import Settings

if TYPE_CHECKING:
    from imaging_pipeline.defs.workspace import Workspace
    from imaging_pipeline.tensors.versions import DatasetVersion

OK = 0

FORMATS = ("folder", "webdataset", "huggingface")


def add_dataset(commands: Any) -> None:
    """Add ``dataset`` and what is below it to the commands of the program."""
    dataset = commands.add_parser("dataset", help="freeze labelled tensors as dataset versions; prove and export them")
    below = dataset.add_subparsers(required=True, metavar="COMMAND")

    below.add_parser("list", help="all versions, the newest first").set_defaults(run=_list)

    freeze = below.add_parser("freeze", help="freeze a dataset as it is now, and write its datasheet")
    freeze.add_argument("dataset", help="the name of a dataset that comes with the package, or a YAML file")
    freeze.set_defaults(run=_freeze)

    show = below.add_parser("show", help="print the datasheet of a version")
    _add_version(show)
    show.set_defaults(run=_show)

    rebuild = below.add_parser("rebuild", help="make a version again from its lake snapshot, and prove it is the same")
    _add_version(rebuild)
    rebuild.set_defaults(run=_rebuild)

    export = below.add_parser("export", help="write a version into a folder for other tools")
    _add_version(export)
    export.add_argument("out", metavar="OUT", type=Path, help="a folder that is new or empty")
    export.add_argument("--format", choices=FORMATS, default=FORMATS[0], help=f"default: {FORMATS[0]}")
    export.set_defaults(run=_export)


def _add_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "version", metavar="VERSION", help="its first digits, or ID/DIGITS; a dataset's name: its newest version"
    )


def _workspace(settings: Settings) -> Workspace:
    from imaging_pipeline.defs.workspace import Workspace  # noqa: PLC0415 - only these commands pay for it

    return Workspace(settings)


def _list(_options: argparse.Namespace, settings: Settings) -> int:
    from imaging_pipeline.tensors.frozen import known_versions  # noqa: PLC0415

    workspace = _workspace(settings)
    with workspace.research(read_only=True) as lake:
        for name, version, images, patients, snapshot in known_versions(lake):
            print(f"{version}  {name}  {images} images  {patients} patients  snapshot {snapshot}")
    return OK


def _freeze(options: argparse.Namespace, settings: Settings) -> int:
    from imaging_pipeline.tensors.datasheet import write_datasheet  # noqa: PLC0415
    from imaging_pipeline.tensors.definition import load_definition  # noqa: PLC0415

    definition = load_definition(options.dataset)
    workspace = _workspace(settings)
    with workspace.research() as lake:
        version = workspace.freeze(lake, definition)
        path = write_datasheet(lake, version, settings)
    _print(version)
    print(f"{'frozen now' if version.is_new else 'frozen before, unchanged'}; datasheet: {path}")
    return OK


def _show(options: argparse.Namespace, settings: Settings) -> int:
    from imaging_pipeline.tensors.candidates import groups_of  # noqa: PLC0415
    from imaging_pipeline.tensors.datasheet import datasheet  # noqa: PLC0415
    from imaging_pipeline.tensors.frozen import find_version, load_version  # noqa: PLC0415

    workspace = _workspace(settings)
    with workspace.research(read_only=True) as lake:
        version = load_version(lake, options.version)
        record = find_version(lake, options.version)
        groups = groups_of(lake, [member.subject_key for member in version.members])
    print(datasheet(version, record, groups), end="")
    return OK


def _rebuild(options: argparse.Namespace, settings: Settings) -> int:
    from imaging_pipeline.tensors.frozen import rebuild_version  # noqa: PLC0415

    workspace = _workspace(settings)
    with workspace.research(read_only=True) as lake:
        version = rebuild_version(lake, options.version, workspace.shards().open)
    _print(version)
    print(f"made again from snapshot {version.snapshot_id}: members and tensors are the same, bit by bit")
    return OK


def _export(options: argparse.Namespace, settings: Settings) -> int:
    from imaging_pipeline.tensors.candidates import groups_of  # noqa: PLC0415
    from imaging_pipeline.tensors.export import ExportFormat, export_version  # noqa: PLC0415
    from imaging_pipeline.tensors.frozen import find_version, load_version  # noqa: PLC0415

    out = options.out.expanduser().absolute()
    workspace = _workspace(settings)
    with workspace.research(read_only=True) as lake:
        version = load_version(lake, options.version)
        record = find_version(lake, options.version)
        groups = groups_of(lake, [member.subject_key for member in version.members])
    is_new = export_version(version, record, groups, out, ExportFormat(options.format), workspace.shards().open)
    _print(version)
    print(f"{'written' if is_new else 'there already'}: {out}")
    return OK


def _print(version: DatasetVersion) -> None:
    print(f"{version.dataset_id} {version.version}")
    for side, patients, images, positive in version.counts():
        print(f"  {side:5}  {patients:>7} patients  {images:>7} images  {positive:>7} with the finding")
    for reason, images in version.left_out.items():
        print(f"  {images:>7} images left out: {reason}")
