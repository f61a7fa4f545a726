from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.quality.figures import Quality, look_at_quality
from imaging_pipeline.metadata.quality.page import render_page, write_page
from imaging_pipeline_tests.metadata.headers import memory_lake
from imaging_pipeline_tests.metadata.scans import SLICES, Header, scan, setting, uid

HOSTILE = '<script>alert("1")</script> & <img src=http://somewhere/x>'


class Reader(HTMLParser):
    """Tags, attributes and visible text of a page; complains about a tag that is not closed."""

    VOID = frozenset({"meta", "br", "!doctype"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + " "


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert not reader.open
    return reader


@pytest.fixture
def lake() -> Iterator[Lake]:
    with memory_lake("identified") as made:
        yield made


def part(page: str, name: str) -> str:
    found = re.search(rf'<section id="{name}">(.*?)</section>', page, re.DOTALL)
    assert found
    return read(found[1]).text


def quality(lake: Lake, batch: str | None = "b1") -> Quality:
    return look_at_quality(lake, None, batch)


def test_a_page_of_clean_data_says_that_all_is_well(lake: Lake) -> None:
    scan(lake, "b1")
    page = render_page(quality(lake))
    assert "Every rule holds." in part(page, "attention")
    assert "follow each other" in part(page, "pairs")
    assert "No object has an issue." in part(page, "issues")
    assert re.search(r"north\s+6\s+6\s+0\s+0\s+0\s+1\s+1\s+1\s+6", part(page, "zones"))
    rules = part(page, "rules")
    (held, count), (held_too, count_too) = re.findall(r"(\d+) of (\d+) hold", rules)
    assert (held, held_too) == (count, count_too)
    assert int(count) > 40


def test_the_page_names_the_two_images_around_a_gap_and_its_size(lake: Lake) -> None:
    scan(lake, "b1", leave_out=[3])
    page = render_page(quality(lake))
    pairs = part(page, "pairs")
    row = rf"volume has no missing slices\s+1\.2\.3\.1\.1\s+{re.escape(uid(1, 2))}\s+{re.escape(uid(1, 4))}\s+5\.0 mm"
    assert re.search(row, pairs)
    assert "ask the archive to send the series again" in part(page, "attention")


def test_completeness_tells_each_modality_and_type(lake: Lake) -> None:
    scan(lake, "b1", change=lambda header, number: header.pop("00080016") if number else None)
    scan(lake, "b2", study=2, change=setting("00080060", "MR"))
    found = {each.column.name: each for each in quality(lake, None).completeness}
    assert found["sop_class_uid"].filled == {"CT": (1, SLICES), "MR": (SLICES, SLICES)}
    assert found["sop_class_uid"].column.attribute_type == "1"
    assert found["patient_sex"].filled == {"CT": (1, 1), "MR": (1, 1)}
    page = part(render_page(quality(lake, None)), "completeness")
    assert re.search(r"SOPClassUID\s+1\s+16\.7 %\s+100 %", page)


def test_values_that_are_not_legal_are_counted_by_manufacturer(lake: Lake) -> None:
    scan(lake, "b1", change=setting("00200012", 1, 2, only=0))
    scan(lake, "b2", study=2, change=setting("00080070", "SIEMENS"))
    found = {str(maker): (count, illegal) for maker, count, illegal in quality(lake, None).invalid}
    assert {maker: illegal for maker, (_, illegal) in found.items()} == {"GE": 1, "SIEMENS": 0}
    assert all(int(str(count)) > SLICES for count, _ in found.values())
    assert "0.4 %" in part(render_page(quality(lake)), "invalid")


def hostile(header: Header, number: int) -> None:
    header["00080070"]["Value"] = header["00080060"]["Value"] = [HOSTILE]


def test_hostile_text_is_shown_as_text(lake: Lake) -> None:
    scan(lake, "b1", change=hostile)
    lake.rows("UPDATE bronze.object_catalog SET source_name = ?", [HOSTILE])
    lake.rows(
        """INSERT INTO bronze.ingest_issue BY NAME SELECT object_key AS issue_key, object_key, 'MAP' AS stage,
        'WARNING' AS severity, ? AS issue_code, ? AS message, arrival_batch FROM bronze.object_catalog""",
        [HOSTILE, HOSTILE],
    )
    page = render_page(quality(lake))
    reader = read(page)
    assert not {"script", "img", "link", "iframe", "object", "form"} & reader.tags
    assert HOSTILE in part(page, "completeness")
    assert HOSTILE in part(page, "issues")
    assert HOSTILE in part(page, "zones")
    assert HOSTILE.upper() in part(page, "invalid")


def test_the_page_needs_no_script_and_no_network(lake: Lake) -> None:
    scan(lake, "b1", leave_out=[3])
    page = render_page(quality(lake))
    reader = read(page)
    assert not {"script", "img", "link", "iframe"} & reader.tags
    assert not {name for name in reader.attributes if name.startswith("on") or name in {"src", "srcset", "action"}}
    assert "http" not in page.replace('http-equiv="Content-Security-Policy"', "")
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_the_page_is_written_whole_into_a_folder_of_its_owner(lake: Lake, tmp_path: Path) -> None:
    scan(lake, "b1")
    path = tmp_path / "quality" / "b1.html"
    write_page(path, quality(lake))
    write_page(path, quality(lake))
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["b1.html"]
    assert path.read_text(encoding="utf-8").endswith("</html>\n")
