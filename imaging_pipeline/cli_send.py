"""The command ``imaging-pipeline send``: make deliveries of the PACS file now.

Reads arguments and prints counts. Of a delivery of the research zone nothing identified is opened.
"""

from __future__ import annotations

import argparse
from typing import Any

from imaging_pipeline.settings import Settings

OK, FAILED = 0, 1


def add_send(commands: Any) -> None:
    """Add ``send`` to the commands of the program."""
    send = commands.add_parser("send", help="send what is due to the peers of the PACS file")
    send.add_argument("delivery", nargs="*", help="their names in the PACS file (default: all)")
    send.add_argument("--again", action="store_true", help="what a peer has refused is tried again, and at once")
    send.add_argument("--list", action="store_true", help="only say which deliveries there are")
    send.set_defaults(run=_send)


def _send(options: argparse.Namespace, settings: Settings) -> int:
    from imaging_pipeline.defs.delivery import deliver  # noqa: PLC0415 - Dagster takes a second to load
    from imaging_pipeline.defs.workspace import Workspace  # noqa: PLC0415
    from imaging_pipeline.pacs.config import load_pacs  # noqa: PLC0415

    config = load_pacs(settings.pacs)
    chosen = [config.delivery(name) for name in options.delivery] or list(config.deliveries)
    if not chosen:
        print("there are no deliveries: describe them in the file that IMAGING_PIPELINE_PACS names")
    is_done = True
    for delivery in chosen:
        if options.list:
            print(f"{delivery.name}: {delivery.what} of the {delivery.zone} zone to {delivery.peer}")
            continue
        passed, withdrawn = deliver(Workspace(settings), delivery, again=options.again)
        print(
            f"{delivery.name}: {passed.chosen} objects, {passed.accepted} accepted now, {passed.refused} refused now, "
            f"{passed.waiting} not accepted yet"
        )
        if passed.failure:
            print(f"  ended early: {passed.failure}")
        if withdrawn:
            print(f"  {withdrawn} objects that {delivery.peer} has were withdrawn here since: tell the peer")
        is_done &= not passed.waiting and not passed.failure
    return OK if is_done else FAILED
