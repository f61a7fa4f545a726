"""What a tick costs when nothing is new, and when one object is, against the plain listing. Last line: one JSON object.

A tree of empty files, a thousand to a folder, is taken in whole; then the tick's own code looks again. The peer is the
least that any listing has to do: ``os.walk`` and one ``stat`` for each file. CPU time (user and system), median of five
rounds taken in turn.

    python benchmarks/tick.py [SIZE …]      default: 10000 100000 1000000
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from imaging_pipeline.catalog.intake import BatchLimits, cut
from imaging_pipeline.catalog.ledger import Ledger
from imaging_pipeline.objects.folder import Folder
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.sources import SourceConfig

SIZES = (10_000, 100_000, 1_000_000)
FILES_PER_FOLDER = 1_000
ROUNDS = 5
READER = ObjectReader()
LIMITS = BatchLimits(objects=5_000, bytes=1 << 40)


def plain_listing(root: Path) -> int:
    found = 0
    for folder, _, names in os.walk(root):
        for name in names:
            status = os.stat(os.path.join(folder, name))  # noqa: PTH116, PTH118
            found += status.st_size >= 0
    return found


def tick(ledger: Ledger, source: Folder) -> int:
    now = datetime.now(UTC)
    new = ledger.scan(source, READER, now=now).new
    cut(ledger, now, LIMITS, source=source.config.name, is_announced=True)
    return new


def cpu_seconds(function: Callable[[], int], expected: int) -> float:
    start = time.process_time()
    found = function()
    elapsed = time.process_time() - start
    assert found == expected, (found, expected)
    return elapsed


def measure(size: int, home: Path) -> dict[str, float]:
    root = home / str(size)
    for number in range(size):
        folder = root / f"{number // FILES_PER_FOLDER:05}"
        if number % FILES_PER_FOLDER == 0:
            folder.mkdir(parents=True)
        os.close(os.open(folder / f"IM{number:08}", os.O_CREAT))
    source = Folder(SourceConfig("bench", str(root), minimum_age_seconds=0.0))
    quiet, one_new, listing = [], [], []
    with Ledger(home / f"{size}.sqlite") as ledger:
        first = cpu_seconds(lambda: tick(ledger, source), size)
        for round_number in range(ROUNDS):
            listing.append(cpu_seconds(lambda: plain_listing(root), size + round_number))
            quiet.append(cpu_seconds(lambda: tick(ledger, source), 0))
            (root / "00000" / f"A{round_number}").touch()  # sorts first
            one_new.append(cpu_seconds(lambda: tick(ledger, source), 1))
    plain = statistics.median(listing)
    return {
        "first_seconds": round(first, 3),
        "listing_seconds": round(plain, 4),
        "nothing_new_seconds": round(statistics.median(quiet), 4),
        "one_new_seconds": round(statistics.median(one_new), 4),
        "ratio_vs_listing": round(statistics.median(quiet) / plain, 2),
        "ratio_vs_listing_one_new": round(statistics.median(one_new) / plain, 2),
        "ledger_mb": round((home / f"{size}.sqlite").stat().st_size / 1e6, 1),
    }


def main() -> None:
    sizes = [int(argument) for argument in sys.argv[1:]] or list(SIZES)
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as home:
        for size in sizes:
            found = measure(size, Path(home))
            print(f"{size:>9,} objects: {found}")
            figures |= {f"{name}_{size}": value for name, value in found.items()}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
