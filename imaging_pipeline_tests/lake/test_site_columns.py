from __future__ import annotations

from pathlib import Path

import pytest

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.site_columns import load_site_columns
from imaging_pipeline.settings import SITE_COLUMNS

GOOD = {
    "table": "dicom_series",
    "name": "site_note",
    "attribute": "SeriesDescription",
    "type": "VARCHAR",
    "phi": "text",
}


def columns_file(folder: Path, *entries: dict[str, str]) -> Path:
    path = folder / "columns.yaml"
    lines = ["columns:"]
    for entry in entries:
        lines += [
            f"{'- ' if number == 0 else '  '}{key}: '{value}'" for number, (key, value) in enumerate(entry.items())
        ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("attribute", "tag", "keyword"),
    [
        ("SeriesDescription", "0008103E", "SeriesDescription"),
        ("(0008,103e)", "0008103E", "SeriesDescription"),
        ("0008103E", "0008103E", "SeriesDescription"),
        ("RequestAttributesSequence.ScheduledProcedureStepID", "00400275.00400009", None),
        ("(0019,xx10)[GEMS_ACQU_01]", "0019xx10[GEMS_ACQU_01]", "GEMS_ACQU_01"),
        ("(0029,xx01)[Siemens v1.0 x].(0029,xx02)[Siemens v1.0 x]", None, None),
    ],
)
def test_an_attribute_can_be_named_in_each_way(
    tmp_path: Path, attribute: str, tag: str | None, keyword: str | None
) -> None:
    path = columns_file(tmp_path, GOOD | {"attribute": attribute})
    ((table, column),) = load_site_columns(path, registry.shipped_tables())
    assert table == "dicom_series"
    assert tag is None or column.tag == tag
    assert keyword is None or column.keyword == keyword


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"table": "no_such_table"}, "no column can be added"),
        ({"table": "dicom_element"}, "no column can be added"),
        ({"table": "object_catalog"}, "no column can be added"),
        ({"name": "modality"}, "has a column 'modality' already"),
        ({"name": "protocol_name", "table": "dicom_instance"}, "has a column 'protocol_name' already"),
        ({"name": "source"}, "has a column 'source' already"),
        ({"name": "order"}, "is a word of SQL"),
        ({"name": "Bad Name"}, "must be like"),
        ({"name": 'x" VARCHAR); DROP TABLE y; --'}, "must be like"),
        ({"type": "STRUCT(a VARCHAR)"}, "type must be one of"),
        ({"phi": "maybe"}, "phi must be one of"),
        ({"attribute": "NoSuchKeyword"}, "every step of the attribute"),
        ({"attribute": "(0019,10xx)"}, "every step of the attribute"),
        ({"attribute": "(0018,xx10)[EVEN GROUP]"}, "every step of the attribute"),
        ({"colour": "red"}, "does not know colour"),
    ],
)
def test_a_wrong_entry_is_named_with_what_is_allowed(tmp_path: Path, change: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigurationError, match="site column 1") as refusal:
        load_site_columns(columns_file(tmp_path, GOOD | change), registry.shipped_tables())
    assert words in str(refusal.value)


@pytest.mark.parametrize("text", ["", "columns: 3", "- a", "{columns: [], other: 1}", "a: [", "columns:\n- 7"])
def test_a_file_of_another_form_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "columns.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError):
        load_site_columns(path, registry.shipped_tables())


def test_a_column_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="given twice"):
        load_site_columns(columns_file(tmp_path, GOOD, GOOD), registry.shipped_tables())


def test_the_registry_has_the_columns_of_the_file_it_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SITE_COLUMNS, str(columns_file(tmp_path, GOOD)))
    names = [column.name for column in registry.table("dicom_series").columns]
    assert names[-4:] == ["site_note", "arrival_batch", "row_version", "_loaded_at"]
    assert "site_note" not in [column.name for column in registry.shipped_tables()["dicom_series"].columns]
