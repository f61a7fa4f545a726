"""All silver tables from stored headers: speed, and memory with N and N / 4 instances. Last line: one JSON object.

Bronze is filled first, with headers that vary by their identifiers: of three patients two have phantoms of
``imaging_pipeline.samples``, one has CT or MR images of pydicom's test files, with richer headers. Then ``load_silver``
makes the rows of each batch of 5,000, in a process of its own; time is its CPU time (user and system) and wall time,
without bronze. Memory is the most it had resident. ``--profile`` shows the functions that take most of the time.

    python benchmarks/rebuild.py [--instances 20000] [--profile]
"""

from __future__ import annotations

import argparse
import cProfile
import hashlib
import io
import json
import pstats
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb
import pydicom

from imaging_pipeline.dicom.header import read_header
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake, attach
from imaging_pipeline.metadata.merging import ENTITY_TABLES
from imaging_pipeline.metadata.silver import load_silver
from imaging_pipeline.samples.phantoms import make_image, plan_patient
from imaging_pipeline.settings import LakeLocation

INSTANCES_PER_BATCH = 5_000
IMAGES_PER_SERIES = 100
PHANTOM_PATIENTS = 20
RICH_FILES = ("CT_small.dcm", "MR_small.dcm")
SEEN = datetime(2026, 1, 1)  # noqa: DTZ001 - the lake's times are naive UTC
UIDS = ("00080018", "0020000D", "0020000E")


@dataclass(frozen=True)
class Template:
    """A header as bronze keeps it, in pieces between its instance, study and series UIDs and its patient."""

    text: str
    replaced: tuple[str, ...]

    def header(self, number: int, series: int) -> tuple[str, str]:
        """The SOP Instance UID and the document of one instance; four series to a study, two studies to a patient."""
        sop_uid = f"1.2.826.0.1.7.1.{number}"
        values = (sop_uid, f"1.2.826.0.1.7.2.{series // 4}", f"1.2.826.0.1.7.3.{series}", f"PID{series // 8}")
        text = self.text
        for was, becomes in zip(self.replaced, values, strict=True):
            text = text.replace(f'"{was}"', f'"{becomes}"')
        return sop_uid, text


def template(content: bytes) -> Template:
    text = read_header(content).json
    elements = json.loads(text)
    return Template(text, tuple(str(elements[tag]["Value"][0]) for tag in (*UIDS, "00100020")))


def templates() -> list[Template]:
    """Two phantoms to each rich header."""
    plans = [plan for number in range(PHANTOM_PATIENTS) for plan in plan_patient(1, number, 96)]
    phantoms = [template(make_image(plan).content) for plan in plans]
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    rich = [template((folder / name).read_bytes()) for name in RICH_FILES]
    return [rich[number // 3 % len(rich)] if number % 3 == 2 else phantoms[number] for number in range(len(phantoms))]


def fill_bronze(lake: Lake, instances: int) -> list[str]:
    """Headers and catalog rows of all batches, as bronze leaves them; returns the batches."""
    sources = templates()
    batches = []
    for first in range(0, instances, INSTANCES_PER_BATCH):
        batch = f"2026-01-01.{first // INSTANCES_PER_BATCH:05}"
        headers: list[dict[str, object]] = []
        catalog: list[dict[str, object]] = []
        for number in range(first, min(first + INSTANCES_PER_BATCH, instances)):
            series = number // IMAGES_PER_SERIES
            sop_uid, text = sources[series // 8 % len(sources)].header(number, series)
            digest = hashlib.sha256(sop_uid.encode()).hexdigest()
            headers.append(
                {"object_key": digest[:32], "sop_instance_uid": sop_uid, "header_json": text, "has_pixel": True,
                 "transfer_syntax_uid": "1.2.840.10008.1.2.1", "arrival_batch": batch}
            )  # fmt: skip
            catalog.append(
                {"object_key": digest[:32], "storage_uri": f"file:///bench/{number}.dcm", "object_version": "1",
                 "length": 500_000, "modification_time": SEEN, "sha256": digest, "parse_status": "PARSED",
                 "source_name": "bench", "first_seen_at": SEEN, "arrival_batch": batch}
            )  # fmt: skip
        with lake.transaction():
            for name, rows in (("dicom_header", headers), ("object_catalog", catalog)):
                lake.replace_batch("bronze", name, registry.table(name).rows(rows), batch)
        batches.append(batch)
    return batches


@contextmanager
def lake_in(folder: Path) -> Iterator[Lake]:
    with duckdb.connect(config={"threads": 2}) as connection:
        location = LakeLocation("identified", f"sqlite:{folder / 'catalog.sqlite'}", str(folder / "data"))
        yield attach(connection, location)


def rebuild(folder: Path, batches: list[str], *, is_profiled: bool) -> dict[str, float]:
    """Load all batches into silver, in this process."""
    profile = cProfile.Profile()
    with lake_in(folder) as lake:
        wall, cpu = time.perf_counter(), time.process_time()
        if is_profiled:
            profile.enable()
        rows = 0
        for batch in batches:
            loaded = load_silver(lake, batch)
            assert loaded.refused == 0
            rows += sum(table.num_rows for table in loaded.tables.values())
        profile.disable()
        seconds = {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
        kept = {name: int(str(lake.rows(f"SELECT count(*) FROM silver.{name}")[0][0])) for name in ENTITY_TABLES}
    if is_profiled:
        text = io.StringIO()
        pstats.Stats(profile, stream=text).sort_stats("tottime").print_stats(25)
        print(text.getvalue())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(f"rows kept: { {name: count for name, count in kept.items() if count} }")
    return seconds | {
        "rows_made": rows,
        "rows_kept": sum(kept.values()),
        "peak_mb": peak,
        "instances": kept["dicom_instance"],
    }


def measure(instances: int, *, is_profiled: bool) -> dict[str, float]:
    """Fill bronze here, rebuild in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        with lake_in(Path(folder)) as lake:
            batches = fill_bronze(lake, instances)
        command = [sys.executable, __file__, "--rebuild", folder, *(["--profile"] if is_profiled else [])]
        output = subprocess.run([*command, *batches], check=True, stdout=subprocess.PIPE, text=True).stdout
    print(output, end="", flush=True)
    said: dict[str, float] = json.loads(output.splitlines()[-1])
    assert said["instances"] == instances
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=20_000)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--rebuild", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("batches", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rebuild:
        print(json.dumps(rebuild(arguments.rebuild, arguments.batches, is_profiled=arguments.profile)))
        return
    few = measure(arguments.instances // 4, is_profiled=False)
    all_ = measure(arguments.instances, is_profiled=arguments.profile)
    figures = {
        "instances": all_["instances"],
        "rows": all_["rows_kept"],
        "rows_per_instance": all_["rows_kept"] / all_["instances"],
        "instances_per_second": all_["instances"] / all_["wall_seconds"],
        "rows_per_second": all_["rows_kept"] / all_["wall_seconds"],
        "cpu_us_per_instance": all_["cpu_seconds"] / all_["instances"] * 1e6,
        "cpu_us_per_row": all_["cpu_seconds"] / all_["rows_kept"] * 1e6,
        "cpu_us_per_instance_quarter": few["cpu_seconds"] / few["instances"] * 1e6,
        "peak_mb": all_["peak_mb"],
        "peak_mb_quarter": few["peak_mb"],
    }
    print(json.dumps({name: round(value, 2) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
