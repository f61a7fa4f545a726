"""The command line: demo, ingest, learn, reconcile, changes, sql, describe, promote, quality, status, doctor, dev, key.

Reads arguments and prints; the work is done by the packages below; what is below ``deid`` is in `cli_deid`. Exit
status: 0 done, 1 something is wrong with the data or the installation, 2 wrong usage or configuration.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from imaging_pipeline import __version__
from imaging_pipeline.cli_access import add_access, record_query
from imaging_pipeline.cli_dataset import add_dataset
from imaging_pipeline.cli_deid import add_deid
from imaging_pipeline.cli_import import add_import
from imaging_pipeline.cli_pacs import add_pacs
from imaging_pipeline.cli_predict import add_predict, sql_functions
from imaging_pipeline.cli_send import add_send
from imaging_pipeline.cli_serve import add_serve
from imaging_pipeline.errors import ConfigurationError, ImagingError, TransientError
from imaging_pipeline.settings import Settings
from imaging_pipeline.sources import SourceConfig, one_time_source

if TYPE_CHECKING:
    from imaging_pipeline.catalog.bronze import BatchCounts
    from imaging_pipeline.catalog.ledger import Batch
    from imaging_pipeline.defs.overview import Overview
    from imaging_pipeline.defs.runner import Runner
    from imaging_pipeline.defs.workspace import Progress, Workspace

OK, FAILED, MISUSED = 0, 1, 2

_BAR = "{desc} {bar:30} {n_fmt}/{total_fmt} [{elapsed}]"

NEXT_COMMANDS = """Next:
  imaging-pipeline sql "SELECT modality, count(DISTINCT study_key) AS studies FROM deid.dicom_series GROUP BY ALL"
  imaging-pipeline sql --lake identified "SELECT storage_uri, stage, issue_code, message FROM bronze.ingest_issue
    JOIN bronze.object_catalog USING (object_key) WHERE severity = 'ERROR'"
  make dev        # the Dagster UI, on what was just made; drop a DICOM file into the landing folder and watch"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; errors made on purpose become one line and an exit status."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options, Settings.from_environment())
    except ConfigurationError as error:
        print(f"imaging-pipeline: {error}", file=sys.stderr)
        return MISUSED
    except TransientError as error:
        print(f"imaging-pipeline: {error} (trying again may help)", file=sys.stderr)
        return FAILED
    except ImagingError as error:
        print(f"imaging-pipeline: {error}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except KeyboardInterrupt:
        print("imaging-pipeline: stopped; run the same command again to go on", file=sys.stderr)
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="imaging-pipeline", description="Medical images as data assets.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="make sample data and run everything on it, up to predictions")
    demo.add_argument("--patients", type=int, default=None, help="phantom patients to make")
    demo.set_defaults(run=_demo)

    ingest = commands.add_parser("ingest", help="take in a location once, up to tensors")
    ingest.add_argument(
        "location", help="folder, zip archive, file, DICOMDIR, manifest (.txt, .csv) or s3://bucket/prefix"
    )
    ingest.add_argument("--source", default=None, help="patient domain of its objects (default: the configured one)")
    ingest.set_defaults(run=_ingest)

    learn = commands.add_parser("learn", help="train the model on all labelled images and predict with the champion")
    learn.set_defaults(run=_learn)

    reconcile = commands.add_parser("reconcile", help="list every source in full and compare with the catalog")
    reconcile.add_argument(
        "--believe-deletions",
        action="append",
        default=[],
        metavar="SOURCE",
        help="its vanished objects are gone, however many",
    )
    reconcile.set_defaults(run=_reconcile)

    changes = commands.add_parser("changes", help="the change feed: what was created, updated, deleted, completed")
    changes.add_argument("--after", type=_count, default=0, metavar="SEQUENCE", help="changes behind this number")
    changes.add_argument("--limit", type=_count, default=100)
    changes.add_argument("--lake", choices=("research", "identified"), default="research", help="default: research")
    changes.set_defaults(run=_changes)

    sql = commands.add_parser("sql", help="run one SELECT on the lakes, read-only")
    sql.add_argument("query")
    sql.add_argument("--lake", choices=("research", "identified", "both"), default="research", help="default: research")
    sql.add_argument("--reidentify", action="store_true", help="attach vault.uid_map; needs the master key")
    sql.add_argument("--csv", action="store_true", help="print CSV instead of a table")
    sql.set_defaults(run=_sql)

    describe = commands.add_parser(
        "describe", help="what a table, column, tag or some words mean, and how to ask for it"
    )
    describe.add_argument("words", nargs="*", help="TABLE, COLUMN, TABLE.COLUMN, 00100020, keyword or plain words")
    describe.add_argument("--json", action="store_true", help="for machines")
    describe.set_defaults(run=_describe)

    promote = commands.add_parser("promote", help="fill the site's own columns in the rows that are there already")
    promote.set_defaults(run=_promote)

    quality = commands.add_parser("quality", help="write the page on the quality of a batch, or of everything")
    quality.add_argument("batch", nargs="?", default=None, help="its key, as in the Dagster UI (default: all batches)")
    quality.add_argument("--out", default=None, metavar="FILE.html", help="default: in the identified zone")
    quality.set_defaults(run=_quality)

    commands.add_parser("status", help="what is in each zone, and what waits").set_defaults(run=_status)
    commands.add_parser("doctor", help="check this installation").set_defaults(run=_doctor)

    for add in (add_access, add_dataset, add_pacs, add_send, add_serve):
        add(commands)
    for add_with_bars in (add_deid, add_import, add_predict):
        add_with_bars(commands, _progress)

    dev = commands.add_parser("dev", help="open the Dagster UI and daemon on this instance")
    dev.add_argument("--port", type=int, default=3000)
    dev.set_defaults(run=_dev)

    key = commands.add_parser("key", help="the master key")
    key.add_argument("action", choices=("create",))
    key.set_defaults(run=_key)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError("must be a whole number, 0 or more")
    return int(text)


def _demo(options: argparse.Namespace, settings: Settings) -> int:
    from imaging_pipeline.samples.landing import write_sample_landing  # noqa: PLC0415

    if settings.create_key_file():
        _say(f"made a master key, readable by you alone: {settings.key_file}")
    with _progress() as progress:
        _say(f"sample input: phantoms, the DICOM files of pydicom, a zip of studies → {settings.landing}")
        extra = {} if options.patients is None else {"patients": options.patients}
        advance = progress("write samples")
        made = write_sample_landing(settings.landing, progress=_as_steps(advance), **extra)
    images = f"{made.images} phantom images of {made.patients} patients ({made.archived_images} of them in a zip)"
    _say(f"{images} and {made.pydicom_files} files of pydicom; {made.written_files} files written now")
    with _session(settings) as (runner, workspace):
        source = replace(settings.landing_source, minimum_age_seconds=0.0)  # the samples are whole
        is_closed = _take_in(runner, source)
        is_learned = _run_learning(runner, workspace)
        _print_overview(workspace)
    print(NEXT_COMMANDS)
    return OK if is_closed and is_learned else FAILED


def _ingest(options: argparse.Namespace, settings: Settings) -> int:
    once = one_time_source(options.location, options.source or settings.source_name)
    # A watched location is the watched source, whoever asks for it: what has vanished from it is gone.
    watched = (each for each in settings.sources if each.location == once.location and not options.source)
    source = next((replace(each, minimum_age_seconds=0.0) for each in watched), once)
    settings.master_key()  # refused before anything is read, not in the middle
    with _session(settings) as (runner, _):
        return OK if _take_in(runner, source) else FAILED


def _reconcile(options: argparse.Namespace, settings: Settings) -> int:
    from imaging_pipeline.defs.intake import reconcile  # noqa: PLC0415 - Dagster takes a second to load
    from imaging_pipeline.defs.runner import open_instance  # noqa: PLC0415
    from imaging_pipeline.defs.workspace import Workspace  # noqa: PLC0415

    known = {config.name for config in settings.sources}
    if unknown := set(options.believe_deletions) - known:
        raise ConfigurationError(f"no source {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    with open_instance(settings) as instance:
        for line in reconcile(Workspace(settings), instance, options.believe_deletions):
            print(line)
    print("runs for what was found are requested by the sensors of the running daemon, or now by 'ingest'")
    return OK


def _changes(options: argparse.Namespace, settings: Settings) -> int:
    from imaging_pipeline.defs.workspace import Workspace  # noqa: PLC0415
    from imaging_pipeline.metadata.changes import read_changes  # noqa: PLC0415

    workspace = Workspace(settings)
    is_research = options.lake == "research"
    lake_of, schema = (workspace.research, "deid") if is_research else (workspace.identified, "silver")
    with lake_of(read_only=True) as lake:
        for change in read_changes(lake, schema, options.after, options.limit):
            print(json.dumps(change, default=str))
    return OK


def _learn(_: argparse.Namespace, settings: Settings) -> int:
    with _session(settings) as (runner, workspace):
        return OK if _run_learning(runner, workspace) else FAILED


def _sql(options: argparse.Namespace, settings: Settings) -> int:
    from imaging_pipeline.lake.console import run_query  # noqa: PLC0415

    record_query(settings, options.lake, options.query, is_reidentified=options.reidentify)
    lakes = {"research": [settings.research], "identified": [settings.identified]}
    locations = lakes.get(options.lake, [settings.research, settings.identified])
    crosswalk = _crosswalk(settings) if options.reidentify else None
    functions = None if options.lake == "identified" else sql_functions(settings)
    frame = run_query(options.query, locations, crosswalk=crosswalk, add_functions=functions).to_pandas()
    if options.csv:
        print(frame.to_csv(index=False), end="")
    else:
        print(frame.to_string(index=False, max_colwidth=100) if len(frame) else "no rows")
    return OK


def _describe(options: argparse.Namespace, _: Settings) -> int:
    from imaging_pipeline.describe.answers import answer, as_json, is_found  # noqa: PLC0415
    from imaging_pipeline.describe.text import render  # noqa: PLC0415

    found = answer(" ".join(options.words))
    print(as_json(found) if options.json else render(found))
    return OK if is_found(found) else FAILED


def _promote(_: argparse.Namespace, settings: Settings) -> int:
    from imaging_pipeline.defs.promotion import fill_site_columns  # noqa: PLC0415
    from imaging_pipeline.defs.workspace import Workspace  # noqa: PLC0415

    for schema, batch_id, done in fill_site_columns(Workspace(settings)):
        for filled in done:
            columns = ", ".join(filled.columns)
            print(f"{schema}.{filled.table} ({columns}): batch {batch_id}, {filled.rows} rows, {filled.values} values")
    return OK


def _quality(options: argparse.Namespace, settings: Settings) -> int:
    from imaging_pipeline.defs.quality import quality_command  # noqa: PLC0415

    for line in quality_command(settings, options.batch, options.out):
        print(line)
    return OK


def _crosswalk(settings: Settings) -> Iterable[tuple[str, str]]:
    from imaging_pipeline.defs.workspace import Workspace  # noqa: PLC0415

    return list(Workspace(settings).vault().originals("UID"))


def _status(_: argparse.Namespace, settings: Settings) -> int:
    from imaging_pipeline.defs.workspace import Workspace  # noqa: PLC0415
    from imaging_pipeline.doctor import examine_source  # noqa: PLC0415

    workspace = Workspace(settings)
    print(f"home      {settings.home}")
    with workspace.ledger() as ledger:
        batches = ledger.batches()
        for config in settings.sources:
            if not (finding := examine_source(settings, config)).is_ok:
                print(f"          {config.name} cannot be listed: {finding.advice}")
            held = ledger.missing(config.name)
            print(f"source    {config.name}: {config.location}; {ledger.waiting(config.name)} objects wait for a batch")
            if held:
                print(
                    f"          {held} objects have vanished from it: is it whole? If so, say it with "
                    f"'imaging-pipeline reconcile --believe-deletions {config.name}'"
                )
    print(f"ledger    {len(batches)} batches")
    with _session(settings) as (runner, _workspace):
        unfinished = runner.unfinished(batches)
    for batch in unfinished:
        print(f"          {batch.batch_id} is unfinished or out of date: repaired at night, or now by 'ingest'")
    champion = workspace.tracker().champion()
    print(f"champion  {champion.uri if champion else 'none yet'}")
    if batches:
        _print_overview(workspace)
    else:
        print("nothing was taken in yet: 'imaging-pipeline ingest LOCATION', or 'demo'")
    return OK


def _doctor(_: argparse.Namespace, settings: Settings) -> int:
    from imaging_pipeline.doctor import examine  # noqa: PLC0415

    findings = []
    for finding in examine(settings):
        findings.append(finding)
        verdict = "OK  " if finding.is_ok else "FAIL"
        print(f"{verdict}  {finding.subject}: {finding.detail}" + (f" → {finding.advice}" if finding.advice else ""))
    wrong = sum(not finding.is_ok for finding in findings)
    print("all is well" if not wrong else f"{wrong} of {len(findings)} need attention; what to do stands behind →")
    return FAILED if wrong else OK


def _dev(options: argparse.Namespace, settings: Settings) -> int:
    from imaging_pipeline.defs.runner import open_instance  # noqa: PLC0415

    settings.create_key_file()
    settings.landing.mkdir(parents=True, exist_ok=True)
    with open_instance(settings):
        home = settings.dagster_home
    _say(f"the UI will be at http://127.0.0.1:{options.port}; the landing folder is {settings.landing}")
    # A sensor gives up listing by itself; a store that does not answer may keep it for longer than Dagster's minute.
    patience = {"DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS": "600"} | dict(os.environ)
    environment = patience | {"DAGSTER_HOME": str(home), "IMAGING_PIPELINE_HOME": str(settings.home)}
    command = [sys.executable, "-m", "dagster", "dev", "-m", "imaging_pipeline.definitions", "-h", "127.0.0.1"]
    command += ["-p", str(options.port)]
    os.execve(sys.executable, command, environment)  # noqa: S606 - a fixed command; signals then reach Dagster itself


def _key(_: argparse.Namespace, settings: Settings) -> int:
    if settings.create_key_file():
        print(f"made {settings.key_file}, readable by you alone; back it up: without it no pseudonym can be traced")
        return OK
    print("there is a key already; it was left as it is")
    return OK


def _take_in(runner: Runner, source: SourceConfig) -> bool:
    """Run the batches of what is new in a source, then those of what turned up in it, and settle its studies."""
    listed, told = runner.look(source)
    _say(told)
    is_good = _run_batches(runner, runner.due_batches(source))
    if not listed:
        print(f"there is nothing to take in at {source.location}: is it the right place?")
        is_good = False
    while found := runner.found_since(source):
        is_good &= _run_batches(runner, found)
    runner.settle()
    return is_good


def _run_batches(runner: Runner, batches: list[Batch]) -> bool:
    """Run batches and print the closing count; whether every count closes and every batch went through."""
    if not batches:
        print("nothing new: all that was listed was taken in before, nothing is parsed again")
    held = []
    for batch in batches:
        _say(f"batch {batch.batch_id}: {batch.objects} objects, {batch.bytes / 1e6:.1f} MB")
        run = runner.run_batch(batch)
        if not run.succeeded:
            held.append(batch)
            checks = ", ".join(runner.failed_checks(run)) or "an error"
            why = f": {run.reason}" if run.reason else ""
            print(f"batch {batch.batch_id} is held by {checks}{why}; its run in the Dagster UI: {run.run_id}")
    counts: BatchCounts = runner.counts(batches)
    print(counts)
    return counts.is_closed and not held


def _run_learning(runner: Runner, workspace: Workspace) -> bool:
    """Train, predict what the champion has not seen, print the model's figures."""
    _say("model: labels, dataset version, training (a minute or two on a laptop)")
    training = runner.train(lambda: _say("another training runs in this installation; this one waits for its end"))
    if not training.succeeded:
        why = training.reason or "see its run in the Dagster UI (make dev)"
        print(f"training failed (run {training.run_id}): {why}")
        return False
    if not training.is_new:
        print("the dataset is unchanged: its model was found, nothing is trained again")
    if training.refusal:
        print(f"the new model does not become champion:\n{training.refusal}")
    if workspace.tracker().champion() is None:
        print("no model predicts yet: look at the model card in MLflow, or at the check of gold/pneumonia_model")
        return False
    with workspace.ledger() as ledger:
        due = runner.unpredicted(ledger.batches())
    runs = [runner.predict(batch) for batch in due]
    _print_champion(workspace)
    return all(run.succeeded for run in runs)


def _print_champion(workspace: Workspace) -> None:
    tracker = workspace.tracker()
    champion = tracker.champion()
    if champion is None:
        return
    metrics = tracker.metrics(champion)
    if "test_auroc" not in metrics:
        print(f"champion {champion.uri}: its test images are of one class only, so it has no AUROC; add patients")
        return
    low, high = metrics.get("test_auroc_ci_low", float("nan")), metrics.get("test_auroc_ci_high", float("nan"))
    print(
        f"champion {champion.uri}: test AUROC {metrics['test_auroc']:.3f} "
        f"(95 % CI {low:.3f} to {high:.3f}, bootstrap by patient)"
    )


def _print_overview(workspace: Workspace) -> None:
    from imaging_pipeline.defs.overview import overview  # noqa: PLC0415

    seen: Overview = overview(workspace)
    print("\nzone    what                 rows")
    for zone, thing, count in seen.zones:
        print(f"{zone:7} {thing:19} {count:>6,}")
    print("\nobjects with issues, and why")
    for issue in seen.issues:
        print(f"  {issue.objects:>5}  {issue.severity:7} {issue.stage:5} {issue.code}: {issue.example}")
    print()


@contextmanager
def _session(settings: Settings) -> Iterator[tuple[Runner, Workspace]]:
    """A runner on the instance the UI shows, with progress bars."""
    from imaging_pipeline.definitions import build_defs  # noqa: PLC0415 - Dagster takes a second to load
    from imaging_pipeline.defs.runner import Runner, open_instance  # noqa: PLC0415
    from imaging_pipeline.defs.workspace import Workspace  # noqa: PLC0415

    with _progress() as progress, open_instance(settings) as instance:
        workspace = Workspace(settings, progress)
        yield Runner(build_defs(workspace), workspace, instance), workspace


@contextmanager
def _progress() -> Iterator[Callable[[str], Progress]]:
    """Progress bars on standard error, one for each stage of each batch."""
    from tqdm import tqdm  # noqa: PLC0415

    with ExitStack() as bars:

        def start(stage: str) -> Progress:
            open_bars: list[tqdm[NoReturn]] = []  # made when there is something to show

            def advance(done: int, total: int) -> None:
                if not open_bars:
                    bar: tqdm[NoReturn] = tqdm(desc=f"  {stage:13}", total=total, mininterval=0.5, bar_format=_BAR)
                    open_bars.append(bars.enter_context(bar))
                open_bars[0].update(done)
                if open_bars[0].n >= total:
                    open_bars[0].close()

            return advance

        yield start


def _as_steps(advance: Progress) -> Callable[[int, int], None]:
    """A callback that is told how many are done in all, on one that is told the steps."""
    before = 0

    def report(done: int, total: int) -> None:
        nonlocal before
        advance(done - before, total)
        before = done

    return report


def _say(text: str) -> None:
    print(f"• {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
