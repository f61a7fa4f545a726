"""The command ``imaging-pipeline predict``: scores of films that are in no lake, as a table.

Reads arguments and prints counts. Exit status: 0 every file could be read as an image, whatever is said of it; 1 some
could not, and the table says why; 2 wrong usage or configuration.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imaging_pipeline.settings import Settings

if TYPE_CHECKING:
    import duckdb

    from imaging_pipeline.pneumonia.prediction import Predictor
    from imaging_pipeline.tensors.shards import ShardReader

EVERY_FILE_READ, SOME_UNREADABLE = 0, 1

CHAMPION = "models:/pneumonia@champion"

REGISTERED = "models:/"

Bars = Callable[[], AbstractContextManager[Callable[[str], Callable[[int, int], None]]]]
"""Opens progress bars; inside, a bar is made by the name of its step."""


def add_predict(commands: Any, bars: Bars) -> None:
    """Add ``predict`` to the commands of the program."""
    command = commands.add_parser("predict", help="score DICOM, PNG and JPEG files with a model, without a lake")
    command.add_argument("paths", metavar="PATH", nargs="+", help="file, folder, zip archive or s3://bucket/prefix")
    command.add_argument("--out", type=Path, required=True, metavar="FILE.csv", help="table of scores")
    command.add_argument(
        "--model",
        default=CHAMPION,
        metavar="MODEL",
        help=f"models:/NAME@ALIAS, models:/NAME/VERSION, or a folder with a model's files (default: {CHAMPION})",
    )
    command.add_argument("--workers", type=int, default=None, help="processes (default: as configured)")
    command.set_defaults(run=lambda options, settings: _run(options, settings, bars))


def _run(options: argparse.Namespace, settings: Settings, bars: Bars) -> int:
    from imaging_pipeline.objects.reading import ObjectReader  # noqa: PLC0415 - only this command pays for it
    from imaging_pipeline.objects.s3 import S3Access  # noqa: PLC0415
    from imaging_pipeline.pneumonia.standalone import predict_files  # noqa: PLC0415

    predictor, version = _model(options.model, settings)
    with bars() as bar:
        counts = predict_files(
            options.paths,
            options.out.expanduser(),
            predictor,
            version,
            workers=options.workers or settings.workers,
            reader=ObjectReader(S3Access(settings.s3_endpoint_url, settings.s3_region)),
            progress=bar("predict"),
        )
    said = " + ".join(f"{counts.flags[flag]} {flag}" for flag in ("POSITIVE", "NEGATIVE", "NO_ANSWER"))
    print(f"rows {counts.rows} = {said}; model {version}, threshold {predictor.threshold:.6g}")
    for reason, count in sorted(counts.reasons.items()):
        print(f"  {count:>6}  {reason}")
    print("a score is no diagnosis: the model is no medical device")
    return SOME_UNREADABLE if counts.unreadable or not counts.rows else EVERY_FILE_READ


def sql_functions(settings: Settings) -> Callable[[duckdb.DuckDBPyConnection], None]:
    """Adds ``predict_pneumonia`` to a connection to the research lake, with the champion of this installation."""
    from imaging_pipeline.pneumonia.sql_function import register_functions  # noqa: PLC0415 - every query pays for it

    def load() -> Predictor:
        return _model(CHAMPION, settings)[0]

    def open_shard(uri: str) -> ShardReader:
        from imaging_pipeline.defs.workspace import Workspace  # noqa: PLC0415 - Dagster takes a second to load

        return Workspace(settings).shards().open(uri)

    return lambda connection: register_functions(connection, load, open_shard=open_shard)


def _model(named: str, settings: Settings) -> tuple[Predictor, str]:
    """A model, and what the table calls it: name and version, or the digest of the weights of one in a folder."""
    from imaging_pipeline.pneumonia.model_files import read_folder  # noqa: PLC0415
    from imaging_pipeline.pneumonia.prediction import Predictor  # noqa: PLC0415

    if not named.startswith(REGISTERED):
        stored, digest = read_folder(Path(named).expanduser())
        return Predictor.of(stored, None), f"sha256:{digest[:12]}"
    from imaging_pipeline.defs.workspace import Workspace  # noqa: PLC0415 - Dagster takes a second to load

    tracker = Workspace(settings).tracker()
    model = tracker.resolve(named)
    return Predictor.of(tracker.load(model), model), f"{model.name}/{model.version}"
