"""Thousands of damaged objects through the whole reading: nothing crashes, hangs, swells, leaks or gets lost.

Every object follows from a seed and an index, so that a failure can be met again alone::

    python -c "from imaging_pipeline_tests.catalog.test_fuzz import replay; print(replay(1, 1234))"
"""

from __future__ import annotations

import ast
import functools
import io
import json
import multiprocessing
import os
import random
import re
import struct
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import pyarrow as pa
import pydicom
import pytest

import imaging_pipeline
from imaging_pipeline.catalog.bronze import load_bronze
from imaging_pipeline.catalog.inspection import inspect_objects
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.quality import count_placed, count_violations
from imaging_pipeline.metadata.silver import load_silver
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.samples.phantoms import make_image, plan_patient
from imaging_pipeline_tests.catalog.hostile import file_object, objects_in

TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
LARGEST_BYTES = 200_000
HEAD_BYTES = 4096
PREAMBLE_BYTES = 132
ZIP_MEMBERS = 5

SILENCE_SECONDS = 60.0
"""An object that takes longer hangs; the slowest of them takes a fraction of a second."""

SWELL_BYTES = 32 << 20
"""What a reading process may grow by. It grows by 7 MiB, to its memo; one value of a lying length is gigabytes."""

SEED = 1
NOT_STARTED = -1
LENGTHS = (0, 1, 7, 0xFF, 0x7FFF, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
VRS = tuple(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT".split()
)
VR_PATTERN = re.compile(rb"(?<=[\0-\x7f][\0-\xff]{3})(?:" + b"|".join(VRS) + b")")
PATH_PATTERN = re.compile(r"(?:[0-9A-F]{8}\[\d+\]\.)*[0-9A-F]{8}(?:\[\d+\])?")
HEADED = {"PARSED", "PARSED_WITH_ISSUES"}
STATUSES = HEADED | {"FAILED", "SKIPPED"}


# Mutants


@functools.cache
def originals() -> tuple[bytes, ...]:
    """The DICOM files inside pydicom and some phantoms."""
    paths = sorted(path for path in TEST_FILES.rglob("*.dcm") if path.stat().st_size < LARGEST_BYTES)
    phantoms = (make_image(plan).content for number in range(5) for plan in plan_patient(7, number, 96))
    return (*(path.read_bytes() for path in paths), *phantoms)


def place(rng: random.Random, data: bytes) -> int:
    """An offset: most often in the header, seldom in the preamble."""
    first = PREAMBLE_BYTES if len(data) > PREAMBLE_BYTES and rng.random() < 0.95 else 0
    return rng.randrange(first, max(first + 1, min(len(data), HEAD_BYTES) if rng.random() < 0.85 else len(data)))


def flip_bits(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 4, 32)) if data else 0):
        changed[place(rng, data)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwrite(rng: random.Random, data: bytes) -> bytes:
    at, size = place(rng, data), rng.choice((1, 2, 4, 8, 100))
    run = rng.choice((b"\0" * size, b"\xff" * size, b"\\" * size, rng.randbytes(size)))
    return data[:at] + run + data[at + size :]


def truncate(rng: random.Random, data: bytes) -> bytes:
    return data[: place(rng, data)]


def insert(rng: random.Random, data: bytes) -> bytes:
    at = place(rng, data)
    return data[:at] + rng.randbytes(rng.choice((1, 2, 3, 8, 500))) + data[at:]


def move_chunk(rng: random.Random, data: bytes) -> bytes:
    """A chunk repeated, or moved, to another place."""
    at, size, to = place(rng, data), rng.choice((2, 8, 64, 1000)), place(rng, data)
    chunk = data[at : at + size]
    rest = data if rng.random() < 0.5 else data[:at] + data[at + size :]
    return rest[:to] + chunk + rest[to:]


def change_length(rng: random.Random, data: bytes) -> bytes:
    """A length field that lies: behind a representation, or anywhere."""
    value, endian = rng.choice(LENGTHS), rng.choice("<<<>")
    vr_at = vr_place(rng, data)
    long = struct.pack(endian + "L", value)
    choices = (
        (vr_at + 2, struct.pack(endian + "H", value & 0xFFFF)),
        (vr_at + 4, long),
        (vr_at, long),  # an implicit length has the place of the representation
        (place(rng, data), long),
    )
    at, field = rng.choice(choices)
    return data[:at] + field + data[at + len(field) :]


def swap_vr(rng: random.Random, data: bytes) -> bytes:
    at = vr_place(rng, data)
    return data[:at] + rng.choice((*VRS, b"ZZ", b"\0\0", b"sq")) + data[at + 2 :]


def splice(rng: random.Random, data: bytes) -> bytes:
    """The first part of one file and the last part of another."""
    other = rng.choice(originals())
    return (data[: place(rng, data)] + other[place(rng, other) :])[:LARGEST_BYTES]


def prefix(rng: random.Random, data: bytes) -> bytes:
    """Bytes before the object, or the first ones cut off."""
    lead = rng.choice((b"\0", b"PK\x03\x04", b"\xef\xbb\xbf", bytes(PREAMBLE_BYTES), rng.randbytes(rng.randrange(300))))
    return rng.choice((lead + data, data[PREAMBLE_BYTES:], data[rng.randrange(400) :]))


def vr_place(rng: random.Random, data: bytes) -> int:
    found = [match.start() for match in VR_PATTERN.finditer(data[:HEAD_BYTES])]
    return rng.choice(found) if found else place(rng, data)


MUTATIONS: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    flip_bits,
    overwrite,
    truncate,
    insert,
    move_chunk,
    change_length,
    change_length,
    swap_vr,
    swap_vr,
    splice,
    prefix,
)


def mutant(seed: int, index: int) -> bytes:
    """The object of this seed and index; always the same for one version of pydicom and of the phantoms."""
    rng = random.Random(f"{seed}/{index}")
    data = rng.choice(originals())
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        data = rng.choice(MUTATIONS)(rng, data)
    return data


def mutant_zip(seed: int, index: int) -> bytes:
    """A damaged archive of damaged objects."""
    rng = random.Random(f"zip/{seed}/{index}")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(ZIP_MEMBERS):
            method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
            content = mutant(seed, index * ZIP_MEMBERS + number)
            archive.writestr(f"{number}/é{number}.dcm", content[:20_000], compress_type=method)
    data = bytearray(buffer.getvalue())
    directory_at = data.find(b"PK\x01\x02")
    for _ in range(rng.choice((0, 1, 1, 2, 5))):
        at = rng.randrange(directory_at if rng.random() < 0.7 else 0, len(data))
        width = rng.choice((1, 2, 4))
        data[at : at + width] = rng.choice((rng.randbytes(width), bytes(width), b"\xff" * width))
    return bytes(data[: rng.randrange(len(data))] if rng.random() < 0.05 else data)


# What must hold of each


@functools.cache
def vocabulary() -> frozenset[str]:
    """Every word that a text in the code of reading contains: an issue is made of nothing else."""
    package = Path(imaging_pipeline.__file__).parent
    paths = [
        package / "errors.py",
        *(path for name in ("objects", "dicom", "catalog") for path in package.glob(f"{name}/*.py")),
    ]
    nodes = (node for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    texts = (node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return frozenset(word for text in texts for word in words(text))


def words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text)


def faults(tables: dict[str, pa.Table], objects: int = 1) -> list[str]:
    """What does not hold of the rows of some objects, in words."""
    catalog, headers, issues = (tables[name].to_pylist() for name in ("object_catalog", "dicom_header", "ingest_issue"))
    found = []
    headed = {row["object_key"] for row in catalog if row["parse_status"] in HEADED}
    if len({row["object_key"] for row in catalog}) != objects or len(catalog) != objects:
        found.append(f"{len(catalog)} rows for {objects} objects")
    if {row["parse_status"] for row in catalog} - STATUSES:
        found.append("a status that is none")
    if headed != {row["object_key"] for row in headers} or len(headers) != len(headed):
        found.append("headers and statuses do not fit")
    told = {row["object_key"] for row in issues}
    if any(row["parse_status"] != "PARSED" and row["object_key"] not in told for row in catalog):
        found.append("not a word on what is wrong")
    for row in headers:
        found += json_faults(row["header_json"])
    for row in issues:
        found += issue_faults(row)
    return found


def json_faults(text: str) -> list[str]:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError
        return dict(pairs)

    try:
        json.loads(text, parse_constant=refuse, object_pairs_hook=unique)
    except ValueError:
        return ["the header is no JSON, or names an attribute twice"]
    return []


def issue_faults(row: dict[str, Any]) -> list[str]:
    found = []
    if "unexpectedly" in row["message"]:
        found.append(row["message"])
    if not set(words(row["message"])) <= vocabulary():
        found.append("an issue says more than the code's own words")
    if row["dicom_path"] is not None and not PATH_PATTERN.fullmatch(row["dicom_path"]):
        found.append("an issue's path is none")
    return found


def replay(seed: int, index: int) -> dict[str, pa.Table]:
    """The bronze rows of one object."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "object.dcm")
        path.write_bytes(mutant(seed, index))
        return inspect_objects(ObjectReader(), "batch", [file_object(path)])


def replay_zip(seed: int, index: int) -> dict[str, pa.Table]:
    """The bronze rows of one archive and its members."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "objects.zip").write_bytes(mutant_zip(seed, index))
        return inspect_objects(ObjectReader(), "batch", objects_in(Path(folder), ObjectReader()))


# Processes that read, and one that watches them


@dataclass(frozen=True)
class Work:
    """Objects of one process."""

    folder: Path
    seed: int
    indices: range
    is_zip: bool = False

    def name(self, index: int) -> str:
        return f"{'replay_zip' if self.is_zip else 'replay'}({self.seed}, {index})"


def examine(work: Work, progress: Synchronized[int], report: Connection) -> None:
    """Read the objects of ``work``; send what does not hold and how many objects had which status."""
    reader = ObjectReader()
    found: list[str] = []
    statuses: Counter[str] = Counter()
    start = 0
    for index in work.indices:
        progress.value = index
        rows, objects = (examine_zip if work.is_zip else examine_object)(work, index, reader)
        start = start or peak_bytes()
        wrong = faults(rows, objects) + grown(start)
        start = max(start, peak_bytes()) if wrong else start  # told once
        found += [f"{work.name(index)}: {text}" for text in wrong]
        statuses.update(rows["object_catalog"]["parse_status"].to_pylist())
    report.send((found, statuses))


def peak_bytes() -> int:
    """The most memory this process has had; the system's other account (ru_maxrss) starts with that of the parent."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def grown(start: int) -> list[str]:
    mebibytes = (peak_bytes() - start) >> 20
    return [f"the process grew by {mebibytes} MiB"] if mebibytes > SWELL_BYTES >> 20 else []


def examine_object(work: Work, index: int, reader: ObjectReader) -> tuple[dict[str, pa.Table], int]:
    path = work.folder / f"{index}.{'dcm' if index % 3 else 'bin'}"
    path.write_bytes(mutant(work.seed, index))
    rows = inspect_objects(reader, "batch", [file_object(path)])
    path.unlink()
    return rows, 1


def examine_zip(work: Work, index: int, reader: ObjectReader) -> tuple[dict[str, pa.Table], int]:
    folder = work.folder / f"{index}"
    folder.mkdir()
    (folder / "objects.zip").write_bytes(mutant_zip(work.seed, index))
    targets = objects_in(folder, reader)
    return inspect_objects(reader, "batch", targets), len(targets)


Examine = Callable[[Work, "Synchronized[int]", Connection], None]


def watch(works: Iterable[Work], examine: Examine = examine, silence_seconds: float = SILENCE_SECONDS) -> Counter[str]:
    """Run each work in a process of its own; fail with the names of the objects that went wrong."""
    context = multiprocessing.get_context("spawn")
    running: list[tuple[Work, SpawnProcess, Synchronized[int], Connection]] = []
    for work in works:
        work.folder.mkdir(parents=True)
        progress = context.Value("q", NOT_STARTED)
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=examine, args=(work, progress, sender), daemon=True)
        process.start()
        sender.close()
        running.append((work, process, progress, receiver))
    found: list[str] = []
    statuses: Counter[str] = Counter()
    for work, process, progress, receiver in running:
        wrong, counted = outcome(work, process, progress, receiver, silence_seconds)
        found += wrong
        statuses += counted
    assert not found, "\n".join(found[:20])
    return statuses


def outcome(
    work: Work, process: SpawnProcess, progress: Synchronized[int], receiver: Connection, silence_seconds: float
) -> tuple[list[str], Counter[str]]:
    """What a process found; when it is silent for too long or dies, the object it was reading."""
    before = NOT_STARTED
    try:
        while not receiver.poll(silence_seconds):
            if progress.value == before != NOT_STARTED:
                return [f"{work.name(before)}: hangs"], Counter()
            before = progress.value
        return receiver.recv()  # type: ignore[no-any-return]
    except EOFError:
        return [f"{work.name(progress.value)}: the process died"], Counter()
    finally:
        process.kill()
        process.join()


def halves(folder: Path, seed: int, count: int, *, is_zip: bool = False) -> list[Work]:
    kind = "zip" if is_zip else "file"
    return [Work(folder / f"{kind}{half}", seed, range(half, count, 2), is_zip) for half in range(2)]


def test_mutated_objects_are_read_refused_or_skipped(tmp_path: Path) -> None:
    statuses = watch(halves(tmp_path, SEED, 2600))
    assert statuses.total() == 2600
    assert set(statuses) == STATUSES  # the mutations do damage, and not too much


def test_mutated_archives_cost_nothing_but_what_is_damaged(tmp_path: Path) -> None:
    statuses = watch(halves(tmp_path, SEED, 120, is_zip=True))
    assert statuses["SKIPPED"] > 60  # archives that could be looked into
    assert statuses["PARSED"] + statuses["PARSED_WITH_ISSUES"] > 120


def hang(work: Work, progress: Synchronized[int], report: Connection) -> None:
    progress.value = 7
    time.sleep(600)


def die(work: Work, progress: Synchronized[int], report: Connection) -> None:
    progress.value = 8
    os._exit(1)


def swell(work: Work, progress: Synchronized[int], report: Connection) -> None:
    start = peak_bytes()
    assert grown(start) == []
    block = b"x" * (2 * SWELL_BYTES)
    report.send((grown(start), Counter({"SKIPPED": len(block)})))


def test_the_watch_names_the_object_that_hangs_kills_or_swells_its_process(tmp_path: Path) -> None:
    work = halves(tmp_path, SEED, 10)[:1]
    with pytest.raises(AssertionError, match=r"replay\(1, 7\): hangs"):
        watch(work, hang, silence_seconds=2.0)
    work[0].folder.rmdir()
    with pytest.raises(AssertionError, match=r"replay\(1, 8\): the process died"):
        watch(work, die)
    work[0].folder.rmdir()
    with pytest.raises(AssertionError, match=r"the process grew by \d+ MiB"):
        watch(work, swell)


def test_faults_are_found_in_rows() -> None:
    index = next(index for index in range(100) if replay(SEED, index)["dicom_header"].num_rows)
    rows = replay(SEED, index)
    assert faults(rows) == []
    assert faults(rows, objects=2)
    assert faults(rows | {"object_catalog": rows["object_catalog"].slice(1)})
    assert faults(rows | {"dicom_header": rows["dicom_header"].slice(1)})
    assert issue_faults({"message": "the name is Zzyzx", "dicom_path": None})
    assert issue_faults({"message": "reading it failed unexpectedly (KeyError)", "dicom_path": None})
    assert issue_faults({"message": "the object ends", "dicom_path": "Doe^John"})
    assert json_faults("[NaN]")
    assert json_faults('{"a":1,"a":2}')


def test_a_batch_of_mutants_goes_through_bronze_and_silver(identified: Lake, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for index in range(300):
        (folder / f"{index:04}.dcm").write_bytes(mutant(SEED + 1, index))
    for index in range(12):
        (folder / f"{index:04}.zip").write_bytes(mutant_zip(SEED + 1, index))
    manifest = objects_in(folder, ObjectReader())
    counts = load_bronze(identified, "1", manifest, ObjectReader(), run_id="run", workers=2)
    assert (counts.seen, counts.is_closed) == (len(manifest), True)
    placed = load_silver(identified, "1")
    keys = identified.rows("SELECT object_key FROM bronze.object_catalog")
    assert Counter(key for (key,) in keys) == Counter(target.key for target in manifest)
    parsed, located, refused = count_placed(identified, "1")
    assert parsed == located + refused == counts.parsed
    assert placed.placed > 50
    assert identified.rows("SELECT count(*) FROM bronze.ingest_issue WHERE contains(message, 'unexpectedly')") == [(0,)]
    assert not any(count_violations(identified, "silver").values())


@pytest.mark.slow
def test_fifty_thousand_mutated_objects(tmp_path: Path) -> None:
    for seed in range(100, 105):
        assert watch(halves(tmp_path / str(seed), seed, 10_000)).total() == 10_000
    watch(halves(tmp_path / "zips", 100, 2_000, is_zip=True))


@pytest.mark.slow
def test_twenty_thousand_mutants_of_ten_seeds_are_placed(identified: Lake, tmp_path: Path) -> None:
    for seed in range(200, 210):
        folder = tmp_path / str(seed)
        folder.mkdir()
        for index in range(2_000):
            (folder / f"{index:04}.dcm").write_bytes(mutant(seed, index))
        manifest = objects_in(folder, ObjectReader())
        assert load_bronze(identified, str(seed), manifest, ObjectReader(), run_id="run", workers=2).is_closed
        load_silver(identified, str(seed))
        parsed, located, refused = count_placed(identified, str(seed))
        assert parsed == located + refused
    unexpected = identified.rows(
        "SELECT object_key, message FROM bronze.ingest_issue WHERE contains(message, 'unexpectedly')"
    )
    assert unexpected == []
