"""One hostile object each: what is said of it, and that its neighbours do not suffer."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from imaging_pipeline.catalog.bronze import load_bronze
from imaging_pipeline.catalog.inspection import inspect_objects
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.quality import count_violations
from imaging_pipeline.metadata.silver import load_silver
from imaging_pipeline.objects.folder import Folder
from imaging_pipeline.objects.model import ObjectVersion
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.sources import SourceConfig
from imaging_pipeline_tests.catalog.hostile import (
    PREAMBLE_BYTES,
    SECRET,
    UNDEFINED,
    before,
    data_set,
    deflated,
    encrypted,
    file_object,
    good,
    lying_group_length,
    many_empty,
    members_of,
    nested,
    never_closed,
    objects_in,
    overlapping,
    raw_name,
    undefined_everywhere,
    without_meta,
    wrong_crc,
    zip64,
    zipped,
)
from imaging_pipeline_tests.conftest import as_nobody
from imaging_pipeline_tests.dicom.test_header import element, file_of, implicit, item

Told = tuple[str, list[tuple[str, str, str]]]
"""Status of an object, and the code, severity and stage of its issues."""

PEAK_BYTES = 100 << 20
"""No object here may cost more, whatever it claims: 16 MiB are the most that is kept or inflated unasked."""

CLEAN: Told = ("PARSED", [])
ARCHIVE: Told = ("SKIPPED", [("archive", "INFO", "LIST")])
BROKEN_ARCHIVE: Told = ("FAILED", [("archive_unreadable", "ERROR", "LIST")])
NOT_DICOM: Told = ("FAILED", [("not_dicom", "ERROR", "PARSE")])
CUT: Told = ("PARSED_WITH_ISSUES", [("truncated", "WARNING", "PARSE")])
UNREADABLE: Told = ("FAILED", [("unreadable", "ERROR", "FETCH")])
NO_META: Told = ("PARSED", [("missing_file_meta", "INFO", "PARSE")])
NO_PREAMBLE: Told = ("PARSED", [("missing_preamble", "INFO", "PARSE")])


def told(tables: dict[str, pa.Table]) -> dict[str, Told]:
    """Status and issues of each object, by the end of its URI."""
    issues: dict[str, list[tuple[str, str, str]]] = {}
    for row in tables["ingest_issue"].to_pylist():
        issues.setdefault(row["object_key"], []).append((row["issue_code"], row["severity"], row["stage"]))
    return {
        row["storage_uri"].rpartition("/in/")[2]: (row["parse_status"], sorted(issues.get(row["object_key"], [])))
        for row in tables["object_catalog"].to_pylist()
    }


def inspected(
    folder: Path, content: dict[str, bytes], targets: Sequence[ObjectVersion] | None = None
) -> dict[str, Told]:
    """What is said of some files; a good one before and a good one behind them must be read."""
    folder.mkdir(exist_ok=True)
    for name, data in {"!first": good(1), **content, "~last": good(2)}.items():
        (folder / name).write_bytes(data)
    tables = inspect_objects(ObjectReader(), "batch", targets or objects_in(folder, ObjectReader()))
    assert SECRET.strip().split(b"^")[0].decode() not in str(tables["ingest_issue"].to_pylist())
    for text in tables["dicom_header"]["header_json"].to_pylist():
        json.loads(text)
    said = told(tables)
    assert (said.pop("%21first"), said.pop("~last")) == (CLEAN, CLEAN)
    return said


# Objects

OBJECTS: dict[str, tuple[Callable[[], bytes], Told]] = {
    "empty.dcm": (bytes, ("FAILED", [("empty", "ERROR", "PARSE")])),
    "empty": (bytes, ("FAILED", [("empty", "ERROR", "PARSE")])),
    "wrong magic.dcm": (lambda: good().replace(b"DICM", b"DICX"), NOT_DICOM),
    "wrong magic": (lambda: good().replace(b"DICM", b"DICX"), ("SKIPPED", [("not_dicom", "INFO", "PARSE")])),
    "text.dcm": (lambda: b"no image " * 99, NOT_DICOM),
    "text.IMA": (lambda: b"no image " * 99, NOT_DICOM),
    "text.txt": (lambda: b"no image " * 99, ("SKIPPED", [("not_dicom", "INFO", "PARSE")])),
    "four gigabytes.dcm": (lambda: before(element(0x00091001, "OB", b"abc", 0xFFFFFFFD)), CUT),
    "almost undefined.dcm": (lambda: before(element(0x00091001, "UN", b"abc", 0xFFFFFFFE)), CUT),
    "undefined text.dcm": (lambda: before(element(0x00091001, "UT", b"abc", UNDEFINED)), CUT),
    "long item.dcm": (lambda: before(element(0x00081032, "SQ", item(b"", 0xFFFFFFF0), 0xFFFFFFF8)), CUT),
    "pixels that are not there.dcm": (lambda: before(element(0x7FE00010, "OW", b"\1\2", 0xFFFFFFF0)), CUT),
    "deflated bomb.dcm": (
        lambda: deflated(element(0x00091001, "UN", b"\0" * 60_000) * 1000),
        ("FAILED", [("too_large", "ERROR", "PARSE")]),
    ),
    "deflated noise.dcm": (
        lambda: file_of(b"\xff" * 99, "1.2.840.10008.1.2.1.99"),
        CLEAN,  # its file meta information is all it has
    ),
    "nested.dcm": (
        lambda: before(nested(3_000, None)),  # a stated 16-bit … 32-bit length grows with each level
        ("PARSED_WITH_ISSUES", [("malformed", "WARNING", "PARSE")]),
    ),
    "nested without lengths.dcm": (
        lambda: before(nested(10_000, UNDEFINED)),
        ("PARSED_WITH_ISSUES", [("malformed", "WARNING", "PARSE")]),
    ),
    "empty elements.dcm": (lambda: before(many_empty(50_000)), CLEAN),
    "private block.dcm": (
        lambda: before(element(0x00090010, "LO", b"ACME") + element(0x00091001, "UN", bytes(20_000_000))),
        CLEAN,
    ),
    "private blocks.dcm": (
        lambda: before(b"".join(element(0x00091001 + n, "UN", b"\1" * 1000) for n in range(5_000))),
        CLEAN,
    ),
    "long name.dcm": (
        lambda: before(element(0x00081048, "PN", (SECRET.strip() + b"=\\") * 5_000)),
        CLEAN,
    ),
    "gigantic name.dcm": (
        lambda: file_of(implicit(0x00100010, (SECRET.strip() + b"=\\") * 1_000_000), ImplicitVRLittleEndian),
        CLEAN,
    ),
    "no preamble.dcm": (lambda: good()[PREAMBLE_BYTES:], NO_PREAMBLE),
    "no file meta.dcm": (without_meta, NO_META),
    "bare": (
        data_set,
        ("PARSED", [("missing_file_meta", "INFO", "PARSE"), ("missing_preamble", "INFO", "PARSE")]),
    ),
    "no extension": (good, CLEAN),
    "an image.txt": (good, CLEAN),
    "meta of no length.dcm": (lambda: lying_group_length(0), CLEAN),
    "meta of four gigabytes.dcm": (lambda: lying_group_length(0xFFFFFFFF), CLEAN),
    "meta into the data set.dcm": (lambda: lying_group_length(100), CLEAN),
    "undefined everywhere.dcm": (undefined_everywhere, CLEAN),
    "never closed.dcm": (never_closed, CUT),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_a_hostile_object_gets_its_code_and_costs_nothing_else(tmp_path: Path, name: str) -> None:
    build, expected = OBJECTS[name]
    data = build()
    tracemalloc.start()
    try:
        said = inspected(tmp_path / "in", {name: data})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert list(said.values()) == [expected]
    assert peak < PEAK_BYTES


def test_an_object_cut_anywhere_says_so_unless_the_cut_is_between_two_elements(tmp_path: Path) -> None:
    parts = [
        before(b""),
        element(0x00081032, "SQ", item(element(0x00080100, "SH", b"T-1234"))),
        element(0x00091001, "OB", b"12345678"),
        element(0x7FE00010, "OW", b"\1\2\3\4"),
    ]
    whole = b"".join(parts)
    meta_end = len(file_of(b"", ExplicitVRLittleEndian))
    modality_end = meta_end + 10
    between = {meta_end, modality_end, *(sum(map(len, parts[:n])) for n in range(1, 5))}
    path = tmp_path / "cut.dcm"
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        (said,) = told(inspect_objects(ObjectReader(), "batch", [file_object(path)])).values()
        if cut < PREAMBLE_BYTES:
            assert said == (NOT_DICOM if cut else ("FAILED", [("empty", "ERROR", "PARSE")]))
        elif cut < meta_end:
            assert said == ("FAILED", [("truncated", "ERROR", "PARSE")])
        else:
            assert said == (CLEAN if cut in between else CUT), cut


@pytest.mark.slow
def test_a_million_empty_elements_are_read(tmp_path: Path) -> None:
    assert inspected(tmp_path / "in", {"many.dcm": before(many_empty(1_000_000))}) == {"many.dcm": CLEAN}


# Archives


def test_a_bomb_in_an_archive_is_refused_and_its_neighbour_read(tmp_path: Path) -> None:
    said = inspected(tmp_path / "in", {"x.zip": zipped([("bomb.dcm", bytes(30_000_000)), ("good.dcm", good())])})
    assert said == {
        "x.zip": ARCHIVE,
        "x.zip!bomb.dcm": ("FAILED", [("too_large", "ERROR", "FETCH")]),
        "x.zip!good.dcm": CLEAN,
    }


def test_an_archive_whose_members_share_their_bytes_is_refused_whole(tmp_path: Path) -> None:
    said = inspected(tmp_path / "in", {"x.zip": overlapping(300, good())})
    assert said == {"x.zip": ("FAILED", [("too_large", "ERROR", "LIST")])}


def test_an_archive_in_an_archive_is_not_entered(tmp_path: Path) -> None:
    inner = zipped([("deep.dcm", good())])
    said = inspected(tmp_path / "in", {"x.zip": zipped([("inner.zip", inner), ("a/b/c/deep.dcm", good())])})
    assert said == {
        "x.zip": ARCHIVE,
        "x.zip!inner.zip": ("FAILED", [("archive_nested", "ERROR", "LIST")]),
        "x.zip!a/b/c/deep.dcm": CLEAN,
    }


def test_names_that_lead_out_of_an_archive_are_only_names(tmp_path: Path) -> None:
    names = [
        "../../up.dcm",
        "/abs.dcm",
        "C:\\win\\x.dcm",
        "a!b.dcm",
        "a%2Fb.dcm",
        "a#?b.dcm",
        "new\nline.dcm",
        "a//b.dcm",
    ]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.zip").write_bytes(zipped([(name, good(n)) for n, name in enumerate(names)]))
    before_reading = sorted(path for path in tmp_path.rglob("*"))
    targets = objects_in(tmp_path / "in", ObjectReader())
    tables = inspect_objects(ObjectReader(), "batch", targets)
    assert [status for status, _ in told(tables).values()] == ["SKIPPED", *["PARSED"] * len(names)]
    assert len({target.key for target in targets}) == len(names) + 1
    assert {target.parent_uri for target in targets[1:]} == {targets[0].uri}
    assert sorted(path for path in tmp_path.rglob("*")) == before_reading


def test_a_member_without_a_name_is_an_object_all_the_same(tmp_path: Path) -> None:
    no_name = raw_name(b"\0\0\0\0", good(), is_utf8=False)  # zipfile ends a name at its first zero byte
    assert inspected(tmp_path / "in", {"x.zip": no_name}) == {"x.zip": ARCHIVE, "x.zip!": CLEAN}


def test_of_two_members_of_one_name_the_last_one_counts(tmp_path: Path) -> None:
    said = inspected(tmp_path / "in", {"x.zip": zipped([("a.dcm", b"first"), ("a.dcm", good())])})
    assert said == {"x.zip": ("SKIPPED", [("archive", "WARNING", "LIST")]), "x.zip!a.dcm": CLEAN}


def test_an_encrypted_member_and_one_with_a_wrong_checksum_are_unreadable(tmp_path: Path) -> None:
    content = {"a.zip": encrypted("a.dcm", good()), "b.zip": wrong_crc("b.dcm", good())}
    assert inspected(tmp_path / "in", content) == {
        "a.zip": ARCHIVE,
        "a.zip!a.dcm": UNREADABLE,
        "b.zip": ARCHIVE,
        "b.zip!b.dcm": UNREADABLE,
    }


def test_an_archive_without_its_end_is_unreadable(tmp_path: Path) -> None:
    whole = zipped([("a.dcm", good())])
    content = {f"{cut}.zip": whole[:cut] for cut in (0, 3, 30, len(whole) // 2, len(whole) - 30, len(whole) - 1)}
    said = inspected(tmp_path / "in", content)
    assert len(said) == len(content)
    assert all(one == BROKEN_ARCHIVE for one in said.values())


def test_an_archive_of_64_bit_sizes_and_every_compression_is_read(tmp_path: Path) -> None:
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    content = {f"{method}.zip": zipped([("a.dcm", good())], method) for method in methods}
    said = inspected(tmp_path / "in", {"64.zip": zip64([("a.dcm", good())])} | content)
    assert [one for name, one in said.items() if name.endswith("!a.dcm")] == [CLEAN] * 5


@pytest.mark.parametrize(
    ("name", "is_utf8", "listed"),
    [
        (b"\x81\x82.dcm", False, "x.zip!%C3%BC%C3%A9.dcm"),
        ("üß.dcm".encode(), True, "x.zip!%C3%BC%C3%9F.dcm"),
        ("üß.dcm".encode(), False, "x.zip!%E2%94%9C%E2%95%9D%E2%94%9C%C6%92.dcm"),
        (b"\r\n\x01\xff.dcm", False, "x.zip!%0D%0A%01%C2%A0.dcm"),
    ],
)
def test_member_names_in_any_alphabet_are_kept(tmp_path: Path, name: bytes, is_utf8: bool, listed: str) -> None:
    said = inspected(tmp_path / "in", {"x.zip": raw_name(name, good(), is_utf8=is_utf8)})
    assert said == {"x.zip": ARCHIVE, listed: CLEAN}


def test_a_member_name_that_is_no_utf8_though_it_claims_to_be_makes_the_archive_unreadable(tmp_path: Path) -> None:
    said = inspected(tmp_path / "in", {"x.zip": raw_name(b"\xff\xfe.dcm", good(), is_utf8=True)})
    assert said == {"x.zip": BROKEN_ARCHIVE}


def test_ten_thousand_members_are_ten_thousand_objects(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(zipped((f"{n // 100}/{n}", good(n)) for n in range(10_000)))
    members = members_of(file_object(path), ObjectReader())
    assert len({member.key for member in members}) == 10_000
    said = told(inspect_objects(ObjectReader(), "batch", members[::97]))
    assert set(map(str, said.values())) == {str(CLEAN)}


def test_an_archive_under_another_name_is_called_one_and_a_file_called_archive_is_read(tmp_path: Path) -> None:
    archive = zipped([("a.dcm", good())])
    said = inspected(tmp_path / "in", {"image.dcm": archive, "nosuffix": archive, "image.zip": good()})
    assert said == {"image.dcm": ARCHIVE, "nosuffix": ARCHIVE, "image.zip": CLEAN}


# Files that change under the reader


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter; pytest's own is its owner's alone."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        folder = Path(made, "in")
        folder.mkdir()
        yield folder


def test_a_file_without_permission_costs_only_itself(open_folder: Path) -> None:
    (open_folder / "closed.dcm").write_bytes(good())
    (open_folder / "open.dcm").write_bytes(good(1))
    (open_folder / "closed.dcm").chmod(0)
    targets = objects_in(open_folder, ObjectReader())
    with as_nobody():
        said = told(inspect_objects(ObjectReader(), "batch", targets))
    assert said == {"closed.dcm": ("FAILED", [("access_denied", "ERROR", "FETCH")]), "open.dcm": CLEAN}


def test_a_pipe_among_the_files_is_no_object(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(good())
    os.mkfifo(tmp_path / "b.dcm")
    (tmp_path / "c.dcm").symlink_to("/dev/zero")
    source = Folder(SourceConfig("site", str(tmp_path), minimum_age_seconds=0.0, follow_links=True))
    listed = source.list(datetime(2100, 1, 1, tzinfo=UTC))
    assert [entry.name for entry in listed] == ["a.dcm"]


def test_a_file_that_becomes_a_pipe_after_it_was_listed_does_not_stop_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(good())
    target = file_object(path)
    path.unlink()
    os.mkfifo(path)
    freed = threading.Event()

    def free() -> None:
        freed.set()
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))

    timer = threading.Timer(5, free)
    timer.start()
    try:
        (said,) = told(inspect_objects(ObjectReader(), "batch", [target])).values()
    finally:
        timer.cancel()
        timer.join()
    assert not freed.is_set(), "the reader waited for somebody to write into the pipe"
    assert said[0] == "FAILED"


@pytest.mark.parametrize("change", ["grown", "shrunk", "replaced"])
def test_a_file_that_changes_after_it_was_listed_waits_for_the_next_listing(tmp_path: Path, change: str) -> None:
    path = tmp_path / "in" / "a.dcm"
    path.parent.mkdir()
    path.write_bytes(good())
    target = file_object(path)
    content = {"grown": good() + bytes(8), "shrunk": good()[:-8], "replaced": good()}[change]
    path.unlink()
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    said = told(inspect_objects(ObjectReader(), "batch", [target]))
    assert said == {"a.dcm": ("FAILED", [("changed_while_read", "ERROR", "FETCH")])}


def test_a_file_that_vanishes_after_it_was_listed_costs_only_itself(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.dcm", "b.dcm"):
        (folder / name).write_bytes(good())
    targets = objects_in(folder, ObjectReader())
    (folder / "a.dcm").unlink()
    assert told(inspect_objects(ObjectReader(), "batch", targets)) == {
        "a.dcm": ("FAILED", [("gone", "ERROR", "FETCH")]),
        "b.dcm": CLEAN,
    }


def test_a_file_that_is_replaced_again_and_again_is_never_half_one_and_half_the_other(tmp_path: Path) -> None:
    path, spare = tmp_path / "a.dcm", tmp_path / ".spare"
    contents = [good(n) + element(0x7FE00010, "OW", bytes([n]) * 3_000_000) for n in (1, 2)]
    digests = {hashlib.sha256(content).hexdigest() for content in contents}
    path.write_bytes(contents[0])
    is_over = threading.Event()

    def replace() -> None:
        turn = 0
        while not is_over.is_set():
            turn += 1
            spare.write_bytes(contents[turn % 2])
            spare.replace(path)

    writer = threading.Thread(target=replace)
    writer.start()
    seen = set()
    try:
        for _ in range(60):
            rows = inspect_objects(ObjectReader(), "batch", [file_object(path)])
            (row,) = rows["object_catalog"].to_pylist()
            seen.add(row["parse_status"])
            assert row["sha256"] in digests if row["parse_status"] == "PARSED" else row["sha256"] is None
    finally:
        is_over.set()
        writer.join()
    assert seen <= {"PARSED", "FAILED"}


# All of them at once


def test_a_batch_of_nothing_but_hostile_objects_closes_and_can_be_placed(identified: Lake, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, (build, _) in OBJECTS.items():
        (folder / name).write_bytes(build())
    (folder / "bombs.zip").write_bytes(zipped([("bomb.dcm", bytes(30_000_000)), ("good.dcm", good(7))]))
    manifest = objects_in(folder, ObjectReader())
    counts = load_bronze(identified, "1", manifest, ObjectReader(), run_id="run", workers=2)
    assert (counts.seen, counts.is_closed) == (len(OBJECTS) + 3, True)
    placed = load_silver(identified, "1")
    assert placed.placed + placed.refused == counts.parsed
    rows = inspect_objects(ObjectReader(), "1", manifest)
    status = {
        target.key: one
        for target, one in zip(manifest, rows["object_catalog"]["parse_status"].to_pylist(), strict=True)
    }
    assert dict(identified.rows("SELECT object_key, parse_status FROM bronze.object_catalog")) == status
    assert not any(count_violations(identified, "silver").values())


def test_an_archive_of_encrypted_members_is_a_bad_archive_and_no_outage(identified: Lake, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.zip").write_bytes(encrypted("a.dcm", good(number)))
    (folder / "bombs.zip").write_bytes(zipped((f"{number}.dcm", bytes(3_000_000)) for number in range(9)))
    manifest = objects_in(folder, ObjectReader())
    counts = load_bronze(identified, "1", manifest, ObjectReader(), run_id="run", workers=1)
    assert (counts.seen, counts.failed, counts.skipped) == (16, 12, 4)
    assert counts.is_closed
