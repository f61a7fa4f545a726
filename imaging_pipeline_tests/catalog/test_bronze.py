"""A batch catalogued, and catalogued again: what is read, what is kept, what is marked as gone."""

from __future__ import annotations

import hashlib
import zipfile
from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pytest

from imaging_pipeline.catalog import bronze, inspection
from imaging_pipeline.catalog.bronze import BatchCounts, load_bronze, readable_archives
from imaging_pipeline.errors import TransientError
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.objects.model import Content, ObjectVersion
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.objects.source import ABSENT
from imaging_pipeline_tests.conftest import folder

FILE = Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"
GONE_AT = datetime(2026, 1, 31)  # noqa: DTZ001

READS: Counter[str] = Counter()


@dataclass(frozen=True, slots=True)
class Counting(ObjectReader):
    """Counts what is read, in this process."""

    reads: Counter[str] = field(default_factory=lambda: READS)

    def read_content(self, target: ObjectVersion, *, keep: int) -> Content:
        READS[target.name] += 1
        return ObjectReader.read_content(self, target, keep=keep)


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[ObjectVersion]:
    (tmp_path / "in").mkdir()
    for number in range(4):
        data = FILE.read_bytes()
        (tmp_path / "in" / f"{number}.dcm").write_bytes(data[:-1] + bytes([number]))
    READS.clear()

    def in_this_process(function, items, *, workers, chunk_size, on_crash):  # type: ignore[no-untyped-def]
        if items:
            yield function(items)

    monkeypatch.setattr(bronze, "map_chunks", in_this_process)
    return list(folder(tmp_path / "in", "site").list(datetime.now(UTC)))


def load(lake: Lake, manifest: list[ObjectVersion]) -> BatchCounts:
    return load_bronze(lake, "b", manifest, Counting(), run_id="run", workers=1)


def rows(lake: Lake) -> dict[str, tuple[str, bool]]:
    found = lake.rows("SELECT relative_path, parse_status, deleted_at IS NULL FROM bronze.object_catalog ORDER BY 1")
    return {str(path).rpartition("/")[2]: (str(status), bool(there)) for path, status, there in found}


def headers(lake: Lake) -> int:
    ((count,),) = lake.rows("SELECT count(*) FROM bronze.dicom_header")
    return int(str(count))


def test_what_was_read_is_not_read_again(identified: Lake, manifest: list[ObjectVersion]) -> None:
    assert str(load(identified, manifest)) == "seen 4 = parsed 4 + failed 0 + skipped 0"
    before = identified.rows("SELECT object_key, _loaded_at FROM bronze.object_catalog ORDER BY ALL")
    assert str(load(identified, manifest)) == "seen 4 = parsed 4 + failed 0 + skipped 0"
    assert set(READS.values()) == {1}
    assert identified.rows("SELECT object_key, _loaded_at FROM bronze.object_catalog ORDER BY ALL") == before


def test_only_what_could_not_be_fetched_is_read_again(
    identified: Lake, manifest: list[ObjectVersion], tmp_path: Path
) -> None:
    hidden = (tmp_path / "in" / "2.dcm").rename(tmp_path / "hidden")
    assert load(identified, manifest).unread == 1
    assert rows(identified)["2.dcm"] == ("FAILED", True)
    hidden.rename(tmp_path / "in" / "2.dcm")
    assert load(identified, manifest).unread == 0
    assert rows(identified)["2.dcm"] == ("PARSED", True)
    assert READS == {"0.dcm": 1, "1.dcm": 1, "2.dcm": 2, "3.dcm": 1}
    assert identified.rows("SELECT count(*) FROM bronze.ingest_issue") == [(0,)]


def test_a_vanished_object_is_marked_and_not_read_and_back_again_unmarked(
    identified: Lake, manifest: list[ObjectVersion], tmp_path: Path
) -> None:
    load(identified, manifest)
    (tmp_path / "in" / "1.dcm").unlink()
    gone = [replace(target, deleted_at=GONE_AT if target.name == "1.dcm" else None) for target in manifest]
    counts = load(identified, gone)
    assert (counts.seen, counts.parsed, counts.unread) == (4, 4, 0)
    assert rows(identified)["1.dcm"] == ("PARSED", False)
    assert headers(identified) == 4
    load(identified, manifest)
    assert rows(identified)["1.dcm"] == ("PARSED", True)
    assert set(READS.values()) == {1}


def test_one_that_vanished_before_it_was_read_is_accounted_for(
    identified: Lake, manifest: list[ObjectVersion], tmp_path: Path
) -> None:
    (tmp_path / "in" / "1.dcm").unlink()
    gone = [replace(target, deleted_at=GONE_AT if target.name == "1.dcm" else None) for target in manifest]
    assert str(load(identified, gone)) == "seen 4 = parsed 3 + failed 0 + skipped 1"
    assert identified.rows("SELECT issue_code, severity FROM bronze.ingest_issue") == [("gone", "INFO")]


def test_a_new_parser_reads_again_but_keeps_the_header_of_what_has_vanished(
    identified: Lake, manifest: list[ObjectVersion], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(identified, manifest)
    (tmp_path / "in" / "1.dcm").unlink()
    gone = [replace(target, deleted_at=GONE_AT if target.name == "1.dcm" else None) for target in manifest]
    for module in (bronze, inspection):
        monkeypatch.setattr(module, "PARSER_VERSION", "next")
    load(identified, gone)
    assert READS == {"0.dcm": 2, "1.dcm": 1, "2.dcm": 2, "3.dcm": 2}
    assert rows(identified)["1.dcm"] == ("PARSED", False)
    assert headers(identified) == 4


def test_a_source_out_of_reach_changes_nothing_but_marks_what_is_gone(
    identified: Lake, manifest: list[ObjectVersion], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(identified, manifest)
    (tmp_path / "in").rename(tmp_path / "away")
    for module in (bronze, inspection):
        monkeypatch.setattr(module, "PARSER_VERSION", "next")
    gone = [replace(target, deleted_at=GONE_AT if target.name == "1.dcm" else None) for target in manifest]
    with pytest.raises(TransientError, match="3 of 4"):
        load(identified, gone)
    assert rows(identified) == {f"{n}.dcm": ("PARSED", n != 1) for n in range(4)}
    assert headers(identified) == 4


def test_a_list_that_names_mostly_what_is_not_there_is_no_outage(
    identified: Lake, manifest: list[ObjectVersion]
) -> None:
    moment = datetime(2026, 1, 1)  # noqa: DTZ001
    absent = [ObjectVersion(f"file:///cd/IM{n}", ABSENT, 0, moment, "site") for n in range(20)]
    counts = load(identified, [*manifest, *absent])
    assert str(counts) == "seen 24 = parsed 4 + failed 20 + skipped 0"
    assert counts.unread == 0
    codes = identified.rows("SELECT issue_code, count(*) FROM bronze.ingest_issue GROUP BY ALL")
    assert codes == [("gone", 20)]


# ---- archives


def an_archive(folder_of_it: Path, manifest: list[ObjectVersion], *, before: bytes = b"") -> list[ObjectVersion]:
    """An archive of two of the files, and its members."""
    path = folder_of_it / "in" / "z.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for target in manifest[:2]:
            archive.write(folder_of_it / "in" / target.name, target.name)
    path.write_bytes(before + path.read_bytes())
    listed = next(each for each in folder(path.parent, "site").list(datetime.now(UTC)) if each.is_archive)
    return [listed, *ObjectReader().list_members(listed)]


def archive_row(lake: Lake) -> tuple[object, ...]:
    (row,) = lake.rows(
        """SELECT sha256, is_dicom, media_type, parse_status, issue_code, severity, message
        FROM bronze.object_catalog LEFT JOIN bronze.ingest_issue USING (object_key)
        WHERE relative_path LIKE '%z.zip' AND parent_uri IS NULL"""
    )
    return row


def test_of_an_archive_the_directory_is_read_and_its_members_have_the_digests(
    identified: Lake, manifest: list[ObjectVersion], tmp_path: Path
) -> None:
    targets = an_archive(tmp_path, manifest)
    assert str(load(identified, targets)) == "seen 3 = parsed 2 + failed 0 + skipped 1"
    assert READS == {"0.dcm": 1, "1.dcm": 1}
    told = (None, False, "application/zip", "SKIPPED", "archive", "INFO", "its 2 members are objects of their own")
    assert archive_row(identified) == told
    digests = identified.rows("SELECT sha256 FROM bronze.object_catalog WHERE parent_uri IS NOT NULL")
    assert {digest for (digest,) in digests} == {
        hashlib.sha256((tmp_path / "in" / target.name).read_bytes()).hexdigest() for target in manifest[:2]
    }
    assert readable_archives(identified, "b", targets) == targets[:1]


def test_an_archive_replaced_after_it_was_listed_waits_for_the_next_listing(
    identified: Lake, manifest: list[ObjectVersion], tmp_path: Path
) -> None:
    (archive, *_) = an_archive(tmp_path, manifest)
    (tmp_path / "in" / "z.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    load(identified, [archive, *manifest])
    assert archive_row(identified)[3:6] == ("FAILED", "changed_while_read", "ERROR")
    assert not readable_archives(identified, "b", [archive])


def test_an_image_with_an_archive_behind_it_is_an_image(
    identified: Lake, manifest: list[ObjectVersion], tmp_path: Path
) -> None:
    image = (tmp_path / "in" / "0.dcm").read_bytes()
    (both, *_) = an_archive(tmp_path, manifest, before=image)
    load(identified, [both])
    whole = hashlib.sha256((tmp_path / "in" / "z.zip").read_bytes()).hexdigest()
    rows = identified.rows("SELECT sha256, is_dicom, media_type FROM bronze.object_catalog")
    assert rows == [(whole, True, "application/dicom")]


def test_where_nothing_has_vanished_the_lake_is_written_once(
    identified: Lake, manifest: list[ObjectVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    writes, real = [], Lake.transaction

    def counted(lake: Lake) -> AbstractContextManager[None]:
        writes.append(lake)
        return real(lake)

    monkeypatch.setattr(Lake, "transaction", counted)
    load(identified, manifest)
    assert len(writes) == 1
    load(identified, [replace(target, deleted_at=GONE_AT) for target in manifest])
    assert len(writes) == 3
