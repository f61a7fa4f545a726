"""Parts of the study pages without a service: texts, attributes, and forms."""

from __future__ import annotations

import doctest
import json

import pytest
from markupsafe import Markup

from imaging_pipeline.web.addresses import study_path
from imaging_pipeline.web.errors import WebError
from imaging_pipeline.web.index.attributes import Document
from imaging_pipeline.web.pages import attributes, rendering, searching
from imaging_pipeline.web.pages.attributes import groups_of
from imaging_pipeline.web.pages.searching import Sealed, read, told

HEADER = {
    "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
    "00080016": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.2"]},
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎"}]},
    "00180050": {"vr": "DS", "Value": [1.25]},
    "00400275": {
        "vr": "SQ",
        "Value": [
            {"00401001": {"vr": "SH", "Value": ["RP1"]}},
            {"00400008": {"vr": "SQ", "Value": [{"00080100": {"vr": "SH", "Value": ["CT1"]}}]}},
        ],
    },
    "00290010": {"vr": "LO", "Value": ["SIEMENS CSA HEADER"]},
    "00291008": {"vr": "CS", "Value": ["IMAGE NUM 4"]},
    "00291110": {"vr": "LO", "Value": ["of nobody"]},
    "7FE00010": {"vr": "OW", "BulkDataURI": "?offset=10"},
}


def rows(wanted: str = "") -> list[attributes.Row]:
    groups, _ = groups_of(json.dumps(HEADER), wanted)
    return [row for group in groups for row in group.rows]


@pytest.mark.parametrize("module", [attributes, rendering, searching])
def test_the_examples_of_docstrings_hold(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


def test_every_attribute_is_a_row_with_its_name_and_value() -> None:
    found = {(row.depth, row.tag): row for row in rows()}
    assert found[0, "(0008,0016)"].text == "1.2.840.10008.5.1.4.1.1.2 (CT Image Storage)"
    assert found[0, "(0010,0010)"].text == "Yamada^Tarou=山田^太郎"
    assert found[0, "(0018,0050)"].text == "1.25"
    assert found[0, "(0040,0275)"].note == "2 items"
    assert found[3, "(0008,0100)"].text == "CT1"
    assert found[0, "(0029,1008)"].name == "SIEMENS CSA HEADER: CSA Image Header Type"
    assert found[0, "(0029,1110)"].name == "Private, of an unknown creator"
    assert found[0, "(7FE0,0010)"].note == "bytes, not shown"


def test_attributes_are_found_by_name_tag_and_with_the_way_to_them() -> None:
    assert [row.tag for row in rows("PATIENT name")] == ["(0010,0010)"]
    assert [row.tag for row in rows("00180050")] == ["(0018,0050)"]
    assert [row.tag for row in rows("code value")] == ["(0040,0275)", "", "(0040,0008)", "(0008,0100)"]
    assert [row.tag for row in rows("scheduled protocol")] == ["(0040,0275)", "", "(0040,0008)", "(0008,0100)"]
    assert rows("Yamada") == []  # a value would have to be in an address


def test_a_header_without_end_is_cut_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attributes, "MOST_ROWS", 4)
    item = {"00080100": {"vr": "SH", "Value": ["x"]}}
    groups, is_whole = groups_of(json.dumps({"00081140": {"vr": "SQ", "Value": [item] * 100}} | HEADER))
    assert sum(len(group.rows) for group in groups) == 4
    assert not is_whole
    assert groups_of(json.dumps({"00180050": HEADER["00180050"]}))[1]


def test_long_and_many_values_are_cut_with_a_note() -> None:
    texts = {"00204000": {"vr": "LT", "Value": ["x" * 70_000]}, "00283006": {"vr": "US", "Value": list(range(4096))}}
    (comment, table) = [row for group in groups_of(json.dumps(texts))[0] for row in group.rows]
    assert comment.is_long
    assert len(comment.text) == attributes.MOST_CHARACTERS
    assert comment.note == "70000 characters, the beginning is shown"
    assert table.note == "4096 values"


def test_what_acts_in_a_text_is_seen_instead() -> None:
    assert rendering.plain("a\x07b\u2067c\ud800\u2028") == "a␇b⟨U+2067⟩c⟨U+D800⟩⟨U+2028⟩"
    assert rendering.plain("two\nlines, Ünïcode 山 שלום") == "two\nlines, Ünïcode 山 שלום"
    assert rendering.plain(None) == ""
    assert rendering.plain(Markup("<b>\x07</b>")) == Markup("<b>\x07</b>")


@pytest.mark.parametrize(
    ("text", "shown"), [("Müller^Jörg^^Dr.", "Müller, Jörg Dr."), ("^^^", ""), (None, ""), ("Kim=金", "Kim")]
)
def test_person_names_are_written_as_people_write_them(text: str | None, shown: str) -> None:
    assert rendering.person(text) == shown


def test_a_uid_that_is_none_leads_nowhere_else() -> None:
    assert study_path('../"x?y#z') == "/studies/..%2F%22x%3Fy%23z"


def test_a_sealed_form_is_of_one_process_and_holds_nothing_readable() -> None:
    sealed = Sealed()
    text = sealed.seal({"name": "Zwetschge"})
    assert "wetschge" not in text
    assert sealed.open(text) == {"name": "Zwetschge"}
    for other in (Sealed().seal({"name": "x"}), text[:-4], "", "ü"):
        with pytest.raises(WebError, match="search again"):
            sealed.open(other)


def test_a_form_is_read_by_its_known_fields() -> None:
    assert read({"name": " Zimt ", "patient": "  ", "evil": "x"}) == {"name": "Zimt"}
    with pytest.raises(WebError, match="longer"):
        read({"name": "x" * 201})


def test_several_values_are_told_together_and_missing_ones_are_none() -> None:
    document: Document = {"00080061": {"vr": "CS", "Value": ["CT", "SEG"]}, "00100010": {"vr": "PN", "Value": [{}]}}
    assert told(document)["00080061"] == "CT, SEG"
    assert told(document)["00100010"] is None
    assert told(document)["00080020"] is None
