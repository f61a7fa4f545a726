"""`imaging-pipeline describe`: the answers, their queries on real tables, the command without any lake."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from imaging_pipeline.cli import main
from imaging_pipeline.describe.answers import ColumnAnswer, TableAnswer, WordsAnswer, answer
from imaging_pipeline.describe.text import render
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.console import run_query
from imaging_pipeline.lake.dictionary.attributes import tags_of
from imaging_pipeline.lake.dictionary.pages import pages
from imaging_pipeline.lake.dictionary.rows import dictionary_rows
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.settings import SITE_COLUMNS, Settings

WIDEST_LINE = 120
COLUMNS = [(table, column) for table in registry.tables().values() for column in table.columns]

WITHOUT_COLUMN = ["00101050", "(0010,2298)", "InsurancePlanIdentification", "0019,100C", "(0040,A372)", "7FE0,0010"]
WITHOUT_COLUMN += ["60xx3000", "0009xx10", "00081140", "00190010", "(0011,0001)", "ReferencedDateTime"]


def column(text: str) -> ColumnAnswer:
    found = answer(text)
    assert isinstance(found, ColumnAnswer)
    return found


def places(text: str) -> set[str]:
    return {f"{place.table}.{place.column}" for place in column(text).places}


@pytest.fixture(scope="module")
def empty_tables() -> Iterator[duckdb.DuckDBPyConnection]:
    """The tables of the registry, as the lakes have them."""
    with duckdb.connect() as connection:
        for schema in registry.SCHEMA_LAKES:
            connection.execute(f"CREATE SCHEMA {schema}")
            for table in registry.tables_of(schema):
                columns = ", ".join(f'"{each.name}" {each.sql_type}' for each in table.columns)
                connection.execute(f"CREATE TABLE {schema}.{table.name} ({columns})")
        yield connection


@pytest.mark.parametrize(
    "text",
    [
        "dicom_series",
        "silver.dicom_series",
        "deid.dicom_series",
        "research.deid.dicom_series",
        "DICOM_Series",
        "series",
    ],
)
def test_a_table_is_found_by_its_name_with_and_without_schema(text: str) -> None:
    found = answer(text)
    assert isinstance(found, TableAnswer)
    assert (found.name, found.schemas, found.key) == ("dicom_series", ("silver", "deid"), ("series_key",))
    assert found.join == (
        "FROM deid.dicom_series",
        "JOIN deid.dicom_study USING (study_key)",
        "JOIN deid.dicom_patient USING (patient_key)",
    )
    assert len(found.columns) == len(registry.table("dicom_series").columns)


@pytest.mark.parametrize("text", ["patient_birth_date", "dicom_patient.patient_birth_date", "Patient Birth Date"])
def test_a_column_is_found_by_its_name_and_says_whether_it_holds_phi(text: str) -> None:
    (place,) = column(text).places
    assert (place.table, place.type, place.tag) == ("dicom_patient", "DATE", "(0010,0030)")
    assert (place.phi, place.ps3_15, place.attribute_type) == ("date", "Z", "2")
    assert "Basic Profile: Z (emptied)" in render(answer(text))


@pytest.mark.parametrize(
    "text", ["(0018,0088)", "00180088", "0018,0088", "0x00180088", "SpacingBetweenSlices", "spacingbetweenslices"]
)
def test_a_tag_or_keyword_finds_its_column_in_every_spelling(text: str) -> None:
    found = column(text)
    assert places(text) == {"dicom_image_plane.spacing_between_slices"}
    assert [(a.vr, a.vm, a.name) for a in found.attributes] == [("DS", "1", "Spacing Between Slices")]


def test_a_tag_finds_nested_and_alternative_places_too() -> None:
    assert places("00080050") == {"dicom_study.accession_number", "dicom_request_attributes.accession_number"}
    assert places("PatientID") == {"dicom_patient.patient_id", "dicom_patient.other_patient_ids_sequence"}
    assert "dicom_request_attributes.requested_procedure_id" in places("(0040,1001)")


def test_the_sequence_whose_items_are_rows_is_answered_by_its_table() -> None:
    found = answer("RequestAttributesSequence")
    assert isinstance(found, TableAnswer)
    assert found.name == "dicom_request_attributes"


def test_every_tag_of_the_registry_leads_to_its_column() -> None:
    for table, each in COLUMNS:
        for tag in tags_of(table, each):
            found = answer(tag)
            if isinstance(found, ColumnAnswer):
                assert f"{table.name}.{each.name}" in places(tag)
            else:
                assert isinstance(found, TableAnswer), tag


def test_every_column_and_table_is_described_and_its_query_runs(empty_tables: duckdb.DuckDBPyConnection) -> None:
    texts = [*registry.tables(), *(f"{table.name}.{each.name}" for table, each in COLUMNS)]
    for text in texts:
        found = answer(text)
        assert isinstance(found, TableAnswer | ColumnAnswer), text
        empty_tables.execute(" ".join(found.sql))
        assert ("--lake identified" in found.command) == (
            "FROM silver" in found.command or "FROM bronze" in found.command
        )
        if isinstance(found, TableAnswer) and found.join:
            empty_tables.execute(f"SELECT count(*) {' '.join(found.join)}")
        assert max(map(len, render(found).splitlines())) <= WIDEST_LINE, text


@pytest.mark.parametrize("text", WITHOUT_COLUMN)
def test_an_attribute_without_a_column_is_asked_for_among_all_elements(
    empty_tables: duckdb.DuckDBPyConnection, text: str
) -> None:
    found = column(text)
    assert not found.places
    assert ".dicom_element" in " ".join(found.sql)
    empty_tables.execute(" ".join(found.sql))
    assert "no column shows it" in render(found)


def test_the_query_among_all_elements_finds_the_value(settings: Settings, identified: Lake) -> None:
    def element(path: str, tag: str, value: str, creator: str | None = None) -> dict[str, object]:
        group = int(tag[:4], 16)
        return {
            "instance_key": "i", "element_path": path, "tag_group": group, "tag_element": 0, "tag_hex": tag, "vr": "LO",
            "vm": 1, "value_string": value, "private_creator": creator, "is_private": bool(group % 2),
            "is_empty": False, "arrival_batch": "b", "row_version": "v",
        }  # fmt: skip

    rows = [
        element("00101050", "00101050", "gold card"),
        element("0019100C", "0019xx0C", "1000", "SIEMENS MR HEADER"),
        element("00102160", "00102160", "other"),
    ]
    with identified.transaction():
        identified.replace_batch("silver", "dicom_element", registry.table("dicom_element").rows(rows), "b")

    def ask(text: str) -> list[dict[str, object]]:
        return run_query("\n".join(column(text).sql), [settings.identified]).to_pylist()

    assert ask("InsurancePlanIdentification") == [{"value_string": "gold card", "n": 1, "instances": 1}]
    private = {"private_creator": "SIEMENS MR HEADER", "value_string": "1000", "n": 1, "instances": 1}
    assert ask("(0019,110C)") == [private]  # another block, the same attribute


def test_values_are_counted_with_their_studies(settings: Settings, identified: Lake) -> None:
    def row(table: str, **values: object) -> None:
        stamp: dict[str, object] = {"arrival_batch": "b", "row_version": "v"}
        rows = registry.table(table).rows([values | stamp])
        identified.replace_batch("silver", table, rows, "none")

    with identified.transaction():
        row("dicom_study", study_key="s", patient_key="p", study_instance_uid="1.2")
        for number in "12":
            row("dicom_series", series_key=number, study_key="s", series_instance_uid=number, series_description="head")
    found = run_query("\n".join(column("series_description").sql), [settings.identified])
    assert found.to_pylist() == [{"series_description": "head", "n": 2, "studies": 1}]


def test_a_private_tag_names_the_creators_known_to_use_it() -> None:
    assert ("SIEMENS MR HEADER", "B_value") in column("(0019,100C)").creators
    assert "SIEMENS MR HEADER: B_value" in render(answer("0019100C"))
    assert "no creator is known" in render(answer("(0999,1099)"))


def test_what_the_profile_does_with_an_attribute_is_said_without_a_column_too() -> None:
    assert [facts.ps3_15 for facts in column("InsurancePlanIdentification").attributes] == ["X"]
    assert [facts.ps3_15 for facts in column("(0019,100C)").attributes] == ["X"]  # every private attribute
    assert [facts.ps3_15 for facts in column("60xx3000").attributes] == ["X"]  # every overlay
    assert "does not list it" in render(answer("PixelData"))


def test_the_entry_for_the_site_makes_it_a_column_that_is_described_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = pages()
    texts = ("InsurancePlanIdentification", "(0019,100C)", "(0040,A370)")
    entries = [column(text).promotion for text in texts]
    (tmp_path / "columns.yaml").write_text("\n".join(["columns:", *entries]), encoding="utf-8")
    monkeypatch.setenv(SITE_COLUMNS, str(tmp_path / "columns.yaml"))

    assert [next(iter(column(text).places)).column for text in texts] == [
        "insurance_plan_identification",
        "private_0019_0c",
        "referenced_request_sequence",
    ]
    assert [next(iter(column(text).places)).type for text in texts] == ["VARCHAR[]", "VARCHAR", "JSON"]
    assert places("insurance_plan_identification") == {"dicom_instance.insurance_plan_identification"}
    names = {row["column_name"] for row in dictionary_rows("research") if row["table_name"] == "dicom_instance"}
    assert "private_0019_0c" in names
    assert pages() == shipped  # the pages of the project are not those of a site

    monkeypatch.delenv(SITE_COLUMNS)
    assert not column("InsurancePlanIdentification").places
    assert column("PixelData").promotion == ""  # bulk values stay in the object


def test_a_table_is_known_without_dicom_before_its_name_unless_a_column_is_called_so() -> None:
    found = answer("series")
    assert isinstance(found, TableAnswer)
    assert found.name == "dicom_series"
    assert places("modality") == {"dicom_series.modality"}


def test_words_are_answered_by_what_fits_best_first() -> None:
    found = answer("slice distance")
    assert isinstance(found, WordsAnswer)
    assert found.lines[0].name == "spacing_between_slices"
    assert found.lines[0].tables == ("dicom_image_plane",)
    birthday = answer("birthday")
    assert isinstance(birthday, WordsAnswer)
    assert (birthday.lines[0].name, birthday.lines[0].phi) == ("patient_birth_date", "date")


def test_schemas_and_lakes_list_their_tables_and_nothing_lists_all() -> None:
    for text, schemas in (("gold", {"gold"}), ("identified", {"bronze", "silver"}), ("", set(registry.SCHEMA_LAKES))):
        found = answer(text)
        assert isinstance(found, WordsAnswer)
        wanted = [table.name for table in registry.tables().values() if schemas & set(table.schemas)]
        assert [line.name for line in found.lines] == wanted


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    status = main(["describe", *words])
    return status, capsys.readouterr().out


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IMAGING_PIPELINE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_the_command_answers_without_any_lake(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = run(capsys, "field", "strength")
    assert status == 0
    assert text.startswith("magnetic_field_strength")
    assert not home.exists()


def test_the_command_says_what_to_do_when_nothing_is_found(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = run(capsys, "xyzzyplugh")
    assert status == 1
    assert "no table, column or attribute matches: xyzzyplugh" in text
    assert "imaging-pipeline describe" in text
    assert run(capsys, "dicom_studdy.")[0] == 0  # one that is spelt similarly


def test_json_holds_the_whole_answer(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = run(capsys, "--json", "(0010,0010)")
    found = json.loads(text)
    assert status == 0
    assert found["kind"] == "column"
    assert found["places"][0] | {"table": "dicom_patient", "phi": "direct", "ps3_15": "Z"} == found["places"][0]
    assert found["attributes"][0]["keyword"] == "PatientName"
    assert found["sql"][-1].endswith("LIMIT 20")
    assert json.loads(run(capsys, "--json", "dose")[1])["kind"] == "words"
    assert json.loads(run(capsys, "--json", "dicom_study")[1])["kind"] == "table"


def test_the_profile_table_and_the_registry_agree_wherever_both_speak() -> None:
    differing = {
        f"{place.table}.{place.column}: {place.ps3_15} but {facts.ps3_15}"
        for table, each in COLUMNS
        if each.tag
        and each.keyword.count(".") == 0
        and isinstance(found := answer(f"{table.name}.{each.name}"), ColumnAnswer)
        for place in found.places
        for facts in found.attributes[:1]
        if facts.ps3_15 != place.ps3_15
    }
    assert not differing
