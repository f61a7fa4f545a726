"""Ingest of header-sized files, from listing to committed bronze and silver. Last line: one JSON object.

Each side is a process of its own, in turn: this package (2 workers), one process of pydicom and pandas, and the same
function under PySpark when an interpreter that has it is named. Time is CPU time, user and system, of the process and
all its descendants; memory is the sum of their proportional set sizes (shared pages count once). Linux only.

    python benchmarks/ingest.py [--objects 10000] [--rounds 3] [--spark-python PYTHON]
"""

from __future__ import annotations

import argparse
import ctypes
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pydicom

PEERS = Path(__file__).with_name("ingest_peers.py")
OBJECTS_PER_BATCH = 5_050
"""As by default, with room for archives, which are objects too: all sides take in the same number of batches."""

OBJECTS_PER_SERIES = 100
OBJECTS_PER_ZIP = 1_000
WORKERS = 2
SAMPLE_SECONDS = 0.1
ZIPS = {"zip_stored": zipfile.ZIP_STORED, "zip_deflated": zipfile.ZIP_DEFLATED}
PR_SET_CHILD_SUBREAPER = 36


# Objects


@dataclass(frozen=True)
class Template:
    """A real CT header with small pixels and places for what differs between objects, all of fixed width."""

    content: bytes

    def object(self, number: int) -> bytes:
        series, instance = divmod(number, OBJECTS_PER_SERIES)
        values = {
            b"9.1.1000000000": f"9.1.{10**9 + number}",
            b"9.2.1000000000": f"9.2.{10**9 + series // 4}",
            b"9.3.1000000000": f"9.3.{10**9 + series}",
            b"PATIENT000": f"P{series // 8:09}",
            b"+00001": f"{instance + 1:+06}",
            b"-777.777": f"{instance:+08.3f}",
        }
        data = self.content
        for place, value in values.items():
            data = data.replace(place, value.encode())
        return data


def ct_template() -> Template:
    ds = pydicom.dcmread(Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm")
    ds.Rows = ds.Columns = 16
    ds.PixelData = bytes(512)
    del ds[0xFFFCFFFC]  # padding
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "1.2.826.0.1.9.1.1000000000"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.826.0.1.9.2.1000000000", "1.2.826.0.1.9.3.1000000000"
    ds.PatientID = "PATIENT000"
    ds.InstanceNumber = "+00001"
    ds.SliceLocation = "-777.777"
    ds.ImagePositionPatient = ["-158.135803", "-179.035797", "-777.777"]
    buffer = io.BytesIO()
    ds.save_as(buffer)
    return Template(buffer.getvalue())


def write_files(folder: Path, count: int) -> None:
    template = ct_template()
    for number in range(count):
        path = folder / f"{number // OBJECTS_PER_SERIES:06}" / f"{number:08}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(template.object(number))


def write_zips(folder: Path, count: int, compression: int) -> None:
    template = ct_template()
    folder.mkdir(parents=True)
    for first in range(0, count, OBJECTS_PER_ZIP):
        with zipfile.ZipFile(folder / f"{first:08}.zip", "w", compression) as archive:
            for number in range(first, min(first + OBJECTS_PER_ZIP, count)):
                archive.writestr(f"{number // OBJECTS_PER_SERIES:06}/{number:08}.dcm", template.object(number))


# Our side, in a process of its own


def ingest(folder: Path, home: Path) -> dict[str, float]:
    """Take a folder in, as the sensor and the assets do; returns what was placed and the seconds of each step."""
    import duckdb  # noqa: PLC0415 - the measuring process needs none of this

    from imaging_pipeline.catalog.bronze import load_bronze, readable_archives  # noqa: PLC0415
    from imaging_pipeline.catalog.ledger import Ledger  # noqa: PLC0415
    from imaging_pipeline.lake.store import attach  # noqa: PLC0415
    from imaging_pipeline.metadata.silver import load_silver  # noqa: PLC0415
    from imaging_pipeline.objects.folder import Folder  # noqa: PLC0415
    from imaging_pipeline.objects.reading import ObjectReader  # noqa: PLC0415
    from imaging_pipeline.settings import LakeLocation  # noqa: PLC0415
    from imaging_pipeline.sources import SourceConfig  # noqa: PLC0415

    now, reader, placed = datetime.now(UTC), ObjectReader(), 0
    lake_folder = home / "identified"
    location = LakeLocation("identified", f"sqlite:{lake_folder / 'catalog.sqlite'}", str(lake_folder / "data"))
    seconds = {"list": 0.0, "bronze": 0.0, "silver": 0.0}
    with Ledger(home / "ledger.sqlite") as ledger, duckdb.connect() as connection:
        lake = attach(connection, location)
        start = time.perf_counter()
        ledger.scan(Folder(SourceConfig("bench", str(folder), minimum_age_seconds=0.0)), reader, now=now)
        batches = ledger.cut(
            day=now.date(), max_objects=OBJECTS_PER_BATCH, max_bytes=1 << 40, max_batches=1 << 30, is_announced=False
        )
        seconds["list"] = time.perf_counter() - start
        for batch in batches:
            start = time.perf_counter()
            manifest = ledger.manifest(batch.batch_id)
            load_bronze(lake, batch.batch_id, manifest, reader, run_id="bench", workers=WORKERS)
            for archive in readable_archives(lake, batch.batch_id, manifest):
                ledger.add_members(archive, reader, now=now)
            middle = time.perf_counter()
            placed += load_silver(lake, batch.batch_id).placed
            seconds["bronze"] += middle - start
            seconds["silver"] += time.perf_counter() - middle
    return {"objects": placed} | seconds


# Measuring


@dataclass(frozen=True)
class Measured:
    """What a process and its descendants took.

    Attributes:
        objects: what it said that it took in.
        cpu_seconds: user and system.
        wall_seconds: from its start to its end.
        peak_mb: most memory at one time, MB.
        temporary_bytes: most bytes that lay in its folder for temporary files at one time.
        steps: what else it said.
    """

    objects: int
    cpu_seconds: float
    wall_seconds: float
    peak_mb: float
    temporary_bytes: int
    steps: dict[str, float]


def measure(command: list[str], expected: int) -> Measured:
    """Run a command whose last line is a JSON object with ``objects``.

    Orphans (a fork server) become children of this process, so that their time is counted too. Some processes are
    waited for by nobody (the workers of PySpark's daemon): where what was seen of all processes while they ran is more
    than the system's account, it counts.
    """
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before, start = _children_cpu(), time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        environment = os.environ | {"TMPDIR": temporary, "SPARK_LOCAL_DIRS": temporary}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True, env=environment)
        watch = Watch(process.pid, Path(temporary))
        output, _ = process.communicate()
        wall = time.perf_counter() - start
        watch.stop()
        _reap()
    if process.returncode:
        raise SystemExit(f"{command[1:3]} failed")
    said = json.loads(output.splitlines()[-1])
    assert said["objects"] == expected, (said, expected)
    steps = {name: value for name, value in said.items() if name != "objects"}
    cpu = max(_children_cpu() - before, watch.cpu_seconds)
    return Measured(expected, cpu, wall, watch.peak_bytes / 1e6, watch.temporary_bytes, steps)


class Watch(threading.Thread):
    """Looks at the memory and time of a session's processes, and at a folder, ten times a second."""

    def __init__(self, session: int, folder: Path) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = self.temporary_bytes = 0
        self._session, self._folder, self._is_over = session, folder, threading.Event()
        self._cpu_of: dict[int, float] = {}
        self.start()

    def run(self) -> None:
        while not self._is_over.wait(SAMPLE_SECONDS):
            pids = list(_pids_of(self._session))
            self.peak_bytes = max(self.peak_bytes, sum(map(_pss_bytes, pids)))
            for pid in pids:
                self._cpu_of[pid] = max(self._cpu_of.get(pid, 0.0), _cpu_seconds(pid))
            sizes = (_size(path) for path in self._folder.rglob("*"))
            self.temporary_bytes = max(self.temporary_bytes, sum(sizes))

    @property
    def cpu_seconds(self) -> float:
        """Time of all processes, each as it was last seen."""
        return sum(self._cpu_of.values())

    def stop(self) -> None:
        self._is_over.set()
        self.join()


def _pids_of(session: int) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            pid = int(entry.name)
            if os.getsid(pid) == session:
                yield pid


def _pss_bytes(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def _cpu_seconds(pid: int) -> float:
    with suppress(OSError):
        user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size if path.is_file() else 0
    return 0


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _reap() -> None:
    with suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def ours(folder: Path, count: int) -> Measured:
    with tempfile.TemporaryDirectory() as home:
        return measure([sys.executable, __file__, "--take-in", str(folder), "--home", home], count)


def peer(python: str, name: str, folder: Path, count: int) -> Measured:
    with tempfile.TemporaryDirectory() as home:
        return measure([python, str(PEERS), name, str(folder), home], count)


def compare(home: Path, count: int, rounds: int, spark_python: str | None) -> dict[str, list[Measured]]:
    folder = home / "files"
    sides = {"ours": partial(ours, folder, count)}
    sides |= {kind: partial(ours, home / kind, count) for kind in ZIPS}
    sides["pydicom"] = partial(peer, sys.executable, "pydicom", folder, count)
    if spark_python:
        sides["pyspark"] = partial(peer, spark_python, "pyspark", folder, count)
    found: dict[str, list[Measured]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in sorted(sides, reverse=number % 2 == 1):  # there and back: no side is always first
            found[name].append(sides[name]())
        print(
            "  ".join(
                f"{name} {runs[-1].cpu_seconds:.1f} s CPU, {runs[-1].wall_seconds:.1f} s"
                for name, runs in found.items()
            )
        )
    return found


def median(runs: list[Measured], field: str) -> float:
    return float(statistics.median(getattr(run, field) for run in runs))


def ratio(more: list[Measured], less: list[Measured], field: str = "cpu_seconds") -> float:
    return float(statistics.median(getattr(a, field) / getattr(b, field) for a, b in zip(more, less, strict=True)))


def figures(home: Path, count: int, rounds: int, spark_python: str | None) -> dict[str, float]:
    write_files(home / "files", count)
    for kind, compression in ZIPS.items():
        write_zips(home / kind, count, compression)
    write_files(home / "many", 4 * count)
    found = compare(home, count, rounds, spark_python)
    own = found["ours"]
    many = ours(home / "many", 4 * count)
    seconds = median(own, "wall_seconds")
    result = {
        "objects": count,
        "objects_per_second": count / seconds,
        "cpu_us_per_object": median(own, "cpu_seconds") / count * 1e6,
        "cpu_us_per_further_object": (many.cpu_seconds - median(own, "cpu_seconds")) / (3 * count) * 1e6,
        **{f"seconds_{name}": statistics.median(run.steps[name] for run in own) for name in own[0].steps},
        "peak_mb_n": median(own, "peak_mb"),
        "peak_mb_4n": many.peak_mb,
        "zip_temporary_bytes": max(run.temporary_bytes for kind in ZIPS for run in found[kind]),
    }
    for kind in ZIPS:
        result[f"{kind}_ratio_cpu"] = ratio(own, found[kind])
        result[f"{kind}_ratio_wall"] = ratio(own, found[kind], "wall_seconds")
    for name in sorted(found.keys() - {"ours", *ZIPS}):
        result[f"ratio_vs_{name}"] = ratio(found[name], own)
        result[f"ratio_vs_{name}_wall"] = ratio(found[name], own, "wall_seconds")
        result[f"{name}_cpu_us_per_object"] = median(found[name], "cpu_seconds") / count * 1e6
        result[f"{name}_peak_mb"] = median(found[name], "peak_mb")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--spark-python", default=os.environ.get("SPARK_PYTHON"), help="an interpreter with pyspark")
    parser.add_argument("--take-in", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.take_in:
        print(json.dumps(ingest(arguments.take_in, arguments.home)))
        return
    with tempfile.TemporaryDirectory() as home:
        found = figures(Path(home), arguments.objects, arguments.rounds, arguments.spark_python)
    print(json.dumps({name: round(value, 2) for name, value in found.items()}))


if __name__ == "__main__":
    main()
