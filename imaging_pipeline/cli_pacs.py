"""The command ``imaging-pipeline pacs``: listen, echo, find, retrieve, pull, status.

Reads arguments and prints. ``find`` prints Study Instance UIDs: it is for those who may see the identified zone.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.pacs.config import Method, PacsConfig, PeerKind, Retrieval, load_pacs
from imaging_pipeline.settings import Settings

OK, INCOMPLETE = 0, 1


def add_pacs(commands: Any) -> None:
    """Add ``pacs`` to the commands of the program."""
    command = commands.add_parser("pacs", help="receive from and fetch from PACS, DICOMweb services and Orthanc")
    actions = command.add_subparsers(required=True, metavar="ACTION")

    listen = actions.add_parser("listen", help="take what peers send, until stopped")
    listen.set_defaults(run=_listen)

    echo = actions.add_parser("echo", help="ask a peer whether it hears us")
    echo.add_argument("peer")
    echo.set_defaults(run=_echo)

    find = actions.add_parser("find", help="what studies a peer has")
    find.add_argument("peer")
    find.add_argument("--date", type=_day, default=None, metavar="YYYY-MM-DD", help="of the study")
    find.add_argument("--patient", default=None, metavar="PATIENT_ID")
    find.add_argument("--accession", default=None, metavar="ACCESSION_NUMBER")
    find.add_argument("--study", default=None, metavar="STUDY_UID")
    find.set_defaults(run=_find)

    retrieve = actions.add_parser("retrieve", help="run a retrieval of the PACS file until nothing is left")
    retrieve.add_argument("name")
    retrieve.add_argument("--now", action="store_true", help="outside its hours, too")
    retrieve.set_defaults(run=_retrieve)

    pull = actions.add_parser("pull", help="fetch the studies of a cohort once")
    pull.add_argument("peer")
    pull.add_argument(
        "--cohort", type=Path, required=True, metavar="FILE.csv", help="PatientID, AccessionNumber or StudyInstanceUID"
    )
    pull.add_argument("--get", action="store_true", help="by C-GET: needs no listener")
    pull.set_defaults(run=_pull)

    actions.add_parser("status", help="what came from each retrieval, and what waits").set_defaults(run=_status)


def _listen(_: argparse.Namespace, settings: Settings) -> int:
    from imaging_pipeline.pacs.listener import listening  # noqa: PLC0415 - pynetdicom takes half a second to load

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    config = _load(settings)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with listening(config, settings) as port:
        secured = "with TLS" if config.ae.tls else "without TLS"
        print(f"{config.ae.title} listens on {config.ae.host}:{port} {secured}; stop it with Ctrl-C", flush=True)
        stop.wait()
        print("no more associations are taken; those under way may finish", flush=True)
    return OK


def _echo(options: argparse.Namespace, settings: Settings) -> int:
    from imaging_pipeline.pacs.reaching import reach  # noqa: PLC0415

    config = _load(settings)
    reach(config.ae, config.peer(options.peer))
    print(f"{options.peer} answers")
    return OK


def _find(options: argparse.Namespace, settings: Settings) -> int:
    from imaging_pipeline.pacs.rounds import server_of  # noqa: PLC0415

    config = _load(settings)
    asked = {
        "StudyDate": f"{options.date:%Y%m%d}" if options.date else None,
        "PatientID": options.patient,
        "AccessionNumber": options.accession,
        "StudyInstanceUID": options.study,
    }
    matching = {keyword: value for keyword, value in asked.items() if value}
    if not matching:
        raise ConfigurationError("say which studies: --date, --patient, --accession or --study")
    found = 0
    for study in server_of(_once(config, options.peer), config, settings).find([matching]):
        print(f"{study.study_uid}  {study.instances:>6} instances  {' '.join(sorted(study.modalities))}")
        found += 1
    print(f"{found} studies", file=sys.stderr)
    return OK


def _retrieve(options: argparse.Namespace, settings: Settings) -> int:
    config = _load(settings)
    retrieval = config.retrieval(options.name)
    return _run(replace(retrieval, hours=None) if options.now else retrieval, config, settings)


def _pull(options: argparse.Namespace, settings: Settings) -> int:
    config = _load(settings)
    once = replace(_once(config, options.peer), cohort=options.cohort.expanduser().absolute())
    return _run(replace(once, method=Method.GET if options.get else Method.MOVE), config, settings)


def _once(config: PacsConfig, peer: str) -> Retrieval:
    """A retrieval for what is asked on the command line."""
    found = config.peer(peer)
    if found.kind is PeerKind.ORTHANC:
        raise ConfigurationError(f"peer {peer!r} is an Orthanc, whose log is followed: 'pacs retrieve' does it")
    if found.source is None:
        raise ConfigurationError(f"peer {peer!r} needs a source in the PACS file: where its objects land")
    return Retrieval(f"pull_{peer}", peer)


def _run(retrieval: Retrieval, config: PacsConfig, settings: Settings) -> int:
    from imaging_pipeline.pacs.fetching import Clock  # noqa: PLC0415
    from imaging_pipeline.pacs.rounds import run_retrieval  # noqa: PLC0415

    done = run_retrieval(retrieval, config, settings, Clock(lambda: datetime.now().astimezone(), time.sleep))
    print(f"{retrieval.name}: {done}")
    return OK if done.is_complete else INCOMPLETE


def _status(_: argparse.Namespace, settings: Settings) -> int:
    from imaging_pipeline.pacs.rounds import open_studies  # noqa: PLC0415

    config = _load(settings)
    with open_studies(settings) as ledger:
        for retrieval in config.retrievals:
            counts = ledger.counts(retrieval.name)
            print(
                f"{retrieval.name:20} {counts.complete:>7} studies came whole, {counts.waiting} wait, "
                f"{counts.failing} failed and are asked for again"
            )
    return OK


def _load(settings: Settings) -> PacsConfig:
    if settings.pacs is None:
        raise ConfigurationError("IMAGING_PIPELINE_PACS names no file: see docs/how-to/pacs.md")
    return load_pacs(settings.pacs)


def _day(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%d")  # noqa: DTZ007 - a day, no moment
    except ValueError:
        raise argparse.ArgumentTypeError("must be a date, as 2026-01-31") from None
