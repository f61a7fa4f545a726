"""The shipped views in both lakes: empty, and over a small real load with an image that has vanished."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pydicom.dataset import Dataset

from imaging_pipeline.catalog.bronze import load_bronze
from imaging_pipeline.deid.profile import load_profile
from imaging_pipeline.deid.release import Releaser, release_batch
from imaging_pipeline.deid.vault import Vault
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.console import run_query
from imaging_pipeline.lake.store import Lake, attach
from imaging_pipeline.metadata.completeness import publish_study_state, settle_studies
from imaging_pipeline.metadata.silver import load_silver
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.settings import Settings
from imaging_pipeline_tests.conftest import environment, folder
from imaging_pipeline_tests.deid.corpus import NAME, ROOT, chest_film, encode, keys
from imaging_pipeline_tests.metadata.views import put, read, with_view

RECIPES = Path(__file__).parents[2] / "docs" / "how-to" / "query.md"
BATCH = "2026-01-31.00001"
NOW = datetime.now(UTC)

VIEWS = [(schema, table) for schema in registry.SCHEMA_LAKES for table in registry.tables_of(schema) if table.is_view]
OVERVIEWS = [
    "study_list",
    "modality_summary",
    "daily_metrics",
    "equipment_utilisation",
    "idc_index",
    "qido_study",
    "qido_series",
    "qido_instance",
]


def film(number: str, series: str, study: str, patient: str, day: str, **more: object) -> bytes:
    request = Dataset()
    request.ScheduledProcedureStepID, request.RequestedProcedureID = "STEP1", "RP1"
    return encode(
        chest_film(
            SOPInstanceUID=f"{ROOT}.3.{number}",
            SeriesInstanceUID=f"{ROOT}.2.{series}",
            StudyInstanceUID=f"{ROOT}.1.{study}",
            PatientID=patient,
            StudyDate=day,
            InstanceNumber=int(number),
            ManufacturerModelName="Model 1",
            StationName=f"STATION{more.get('Modality', 'DX')}",
            RequestAttributesSequence=[request],
            **more,
        )
    )


FILES = {
    "a": film("1", "1", "1", "MRN-1", "20210105"),
    "b with space%20": film("2", "1", "1", "MRN-1", "20210105"),
    "c": film("3", "2", "2", "MRN-1", "20210107", Modality="CR", PatientSex="F"),
    "copy of a": film("1", "1", "1", "MRN-1", "20210105"),
    "gone": film("8", "1", "1", "MRN-1", "20210105"),
    "gone alone": film("9", "9", "9", "MRN-9", "20210105", BurnedInAnnotation="NO"),
    "cut off": film("4", "4", "4", "MRN-4", "20210105")[:200],
    "notes.txt": b"no image at all",
}


@dataclass(frozen=True)
class Loaded:
    """An installation with one batch."""

    settings: Settings
    identified: Lake
    research: Lake
    unsettled: list[tuple[object, ...]]

    def rows(self, view: str, order: str = "ALL", schema: str = "silver") -> list[dict[str, Any]]:
        lake = {"identified": self.identified, "research": self.research}[registry.SCHEMA_LAKES[schema]]
        rows: list[dict[str, Any]] = lake.query(f"SELECT * FROM {schema}.{view} ORDER BY {order}").to_pylist()
        return rows


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    home = tmp_path_factory.mktemp("views")
    settings = Settings.from_environment(environment(home / "home"))
    landing = home / "landing"
    landing.mkdir()
    for name, content in FILES.items():
        (landing / name).with_suffix(Path(name).suffix or ".dcm").write_bytes(content)
    seen = datetime(2026, 1, 30, 23, 59)  # noqa: DTZ001 - the lake's times are naive UTC
    manifest = [replace(entry, first_seen_at=seen) for entry in folder(landing, "north").list(NOW)]
    after = [replace(entry, deleted_at=datetime(2026, 2, 1)) if "/gone" in entry.uri else entry for entry in manifest]  # noqa: DTZ001
    with duckdb.connect() as first, duckdb.connect() as second:
        identified, research = attach(first, settings.identified), attach(second, settings.research)
        releaser = Releaser(load_profile(), keys(), ObjectReader(), home / "files", BATCH)
        vault = Vault(home / "vault" / "vault.sqlite", keys())
        for entries in (manifest, after):
            load_bronze(identified, BATCH, entries, ObjectReader(), run_id="run", workers=1)
            load_silver(identified, BATCH)
        release_batch(identified, research, vault, releaser, workers=1)
        unsettled = identified.rows("SELECT state, last_arrival_at FROM silver.study_list")
        settle_studies(identified, NOW + timedelta(days=1))
        publish_study_state(identified, research, keys())
        yield Loaded(settings, identified, research, unsettled)


def declared_rows(lake: Lake, schema: str, table: registry.Table) -> list[dict[str, Any]]:
    """The rows of a view, which has the columns and types of the registry."""
    found = lake.query(f"FROM {schema}.{table.name}")
    assert [(each.name, each.type) for each in found.schema] == [(c.name, c.arrow_type) for c in table.columns]
    rows: list[dict[str, Any]] = found.to_pylist()
    return rows


def test_every_view_is_there_and_empty_in_a_new_lake(identified: Lake, research: Lake) -> None:
    lakes = {"identified": identified, "research": research}
    assert set(OVERVIEWS) <= {table.name for schema, table in VIEWS if schema == "deid"}
    for schema, table in VIEWS:
        assert declared_rows(lakes[registry.SCHEMA_LAKES[schema]], schema, table) == []


def test_every_view_has_the_declared_columns_over_a_load_and_its_key_is_one(loaded: Loaded) -> None:
    lakes = {"identified": loaded.identified, "research": loaded.research}
    for schema, table in VIEWS:
        rows = declared_rows(lakes[registry.SCHEMA_LAKES[schema]], schema, table)
        assert len({tuple(row[name] for name in table.key) for row in rows}) == len(rows), table.name
        assert rows or table.name not in OVERVIEWS, table.name


def test_the_study_list_tells_who_when_what_and_how_much(loaded: Loaded) -> None:
    first, second = loaded.rows("study_list", "study_date")
    assert (first["patient_id"], first["patient_name"], first["patient_sex"]) == ("MRN-1", NAME, "F")
    assert first["study_instance_uid"] == f"{ROOT}.1.1"
    assert (first["study_date"], second["study_date"]) == (date(2021, 1, 5), date(2021, 1, 7))
    assert (first["modalities_in_study"], second["modalities_in_study"]) == (["DX"], ["CR"])
    assert (first["number_of_series"], first["number_of_instances"], second["number_of_instances"]) == (1, 2, 1)
    assert first["study_size_bytes"] == len(FILES["a"]) + len(FILES["b with space%20"])
    assert (first["accession_number"], first["patient_domain"]) == ("ACC992817", "north")
    assert first["state"] == "COMPLETE"
    assert first["last_arrival_at"] == datetime(2026, 1, 30, 23, 59)  # noqa: DTZ001


def test_a_study_nobody_has_settled_yet_is_open(loaded: Loaded) -> None:
    assert loaded.unsettled == [("OPEN", None), ("OPEN", None)]


def test_the_modality_summary_counts_patients_studies_series_instances_and_bytes(loaded: Loaded) -> None:
    assert loaded.rows("modality_summary", "modality") == [
        {
            "modality": modality,
            "patients": 1,
            "studies": 1,
            "series": 1,
            "instances": instances,
            "bytes": sum(len(FILES[name]) for name in names),
            "first_study_date": day,
            "last_study_date": day,
        }
        for modality, instances, names, day in (
            ("CR", 1, ["c"], date(2021, 1, 7)),
            ("DX", 2, ["a", "b with space%20"], date(2021, 1, 5)),
        )
    ]


def test_days_and_devices_are_counted(loaded: Loaded) -> None:
    days = [
        (row["study_date"].day, row["modality"], row["exams"], row["instances"]) for row in loaded.rows("daily_metrics")
    ]
    assert days == [(5, "DX", 1, 2), (7, "CR", 1, 1)]
    devices = loaded.rows("equipment_utilisation", "modality")
    assert [(row["station_name"], row["modality"], row["exams"], row["instances"]) for row in devices] == [
        ("STATIONCR", "CR", 1, 1),
        ("STATIONDX", "DX", 1, 2),
    ]
    assert {(row["days_in_use"], row["exams_per_day_in_use"]) for row in devices} == {(1, 1.0)}
    assert {(row["manufacturer_model_name"], row["institution_name"]) for row in devices} == {
        ("Model 1", "St. Ottilien Hospital")
    }


def test_what_has_vanished_is_in_no_view_but_the_tally_of_arrivals(loaded: Loaded) -> None:
    gone = (f"{ROOT}.3.8", f"{ROOT}.3.9", f"{ROOT}.1.9", "MRN-9", "gone")
    kept = loaded.identified.rows("SELECT sop_instance_uid FROM silver.dicom_instance WHERE version_state = 'DELETED'")
    assert {uid for (uid,) in kept} == set(gone[:2])  # they are there to be counted by mistake
    for name in (*OVERVIEWS, "object_metadata", "ct_dose"):
        text = str(loaded.rows(name))
        assert not [word for word in gone if word in text], name
    (arrivals,) = loaded.rows("daily_arrivals")
    counts = ("objects", "parsed", "failed", "skipped", "vanished")
    assert [arrivals[name] for name in counts] == [8, 7, 0, 1, 2]
    assert arrivals["bytes"] == sum(map(len, FILES.values()))
    assert (arrivals["arrival_date"], arrivals["source_name"]) == (date(2026, 1, 30), "north")


def test_an_object_can_be_found_by_what_it_shows_and_opened_at_its_path(loaded: Loaded) -> None:
    found = {Path(row["local_path"]).name.removesuffix(".dcm"): row for row in loaded.rows("object_metadata")}
    assert found.keys() == FILES.keys() - {"gone", "gone alone"}
    for name, row in found.items():
        assert Path(row["local_path"]).read_bytes() == FILES[name]
    assert sorted(found[name]["role"] for name in ("a", "copy of a")) == ["COPY", "ORIGINAL"]
    image = found["b with space%20"]
    assert (image["modality"], image["series_instance_uid"], image["image_rows"]) == ("DX", f"{ROOT}.2.1", 4)
    assert (image["patient_id"], image["instance_number"], image["length"]) == (
        "MRN-1",
        2,
        len(FILES["b with space%20"]),
    )
    assert {"space", "dcm"} <= set(image["path_tags"])
    assert '"00080018"' in image["meta"]
    cut, notes = found["cut off"], found["notes.txt"]
    assert (cut["parse_status"], cut["has_error"], cut["sop_instance_uid"]) == ("PARSED_WITH_ISSUES", True, None)
    assert cut["issue_codes"]
    assert (notes["parse_status"], notes["role"], notes["meta"]) == ("SKIPPED", None, None)


def test_issues_come_with_the_share_of_objects_that_have_them(loaded: Loaded) -> None:
    found = {(row["modality"], row["issue_code"]): row for row in loaded.rows("issue_summary")}
    copies = found["DX", "duplicate_content"]
    assert (copies["source_name"], copies["stage"], copies["severity"]) == ("north", "MAP", "INFO")
    assert (copies["objects_with_issue"], copies["share"]) == (1, pytest.approx(1 / 3))
    assert any(modality is None and row["share"] == 0.5 for (modality, _), row in found.items())


def test_the_index_has_the_columns_queries_of_the_imaging_data_commons_name(loaded: Loaded) -> None:
    rows = loaded.identified.rows(
        """SELECT PatientID, StudyDate, BodyPartExamined, Manufacturer, SOPClassUID, instanceCount, series_size_MB
        FROM silver.idc_index WHERE Modality = 'DX' AND SeriesInstanceUID LIKE '%.2.1'"""
    )
    size = (len(FILES["a"]) + len(FILES["b with space%20"])) / 1e6
    sop_class = "1.2.840.10008.5.1.4.1.1.1.1"
    assert rows == [("MRN-1", date(2021, 1, 5), "CHEST", "Acme Imaging", sop_class, 2, pytest.approx(size))]


def test_searches_are_answered_with_the_required_attributes(loaded: Loaded) -> None:
    study, _ = loaded.rows("qido_study", "study_date")
    assert study["retrieve_path"] == f"/studies/{ROOT}.1.1"
    assert (study["number_of_study_related_series"], study["number_of_study_related_instances"]) == (1, 2)
    assert (study["study_id"], study["referring_physician_name"]) == ("77120", "Krautschnabel^Ilse")
    series = loaded.rows("qido_series", "series_instance_uid")[0]
    assert series["request_attributes_sequence"] == [
        {"scheduled_procedure_step_id": "STEP1", "requested_procedure_id": "RP1"}
    ]
    instance = loaded.rows("qido_instance", "instance_number")[1]
    assert instance["retrieve_path"] == f"/studies/{ROOT}.1.1/series/{ROOT}.2.1/instances/{ROOT}.3.2"
    assert (instance["image_rows"], instance["image_columns"], instance["bits_allocated"]) == (4, 4, 16)


def test_the_research_side_shows_nothing_but_its_own_tables(loaded: Loaded) -> None:
    for schema, table in VIEWS:
        text = table.ddl(schema).lower()
        assert schema not in ("deid", "gold") or not re.search(r"\b(silver|bronze|vault)\.", text), table.name
    names = [table.name for schema, table in VIEWS if schema == "deid"]
    shown = "".join(str(loaded.rows(name, schema="deid")) for name in names)
    assert loaded.rows("study_list", schema="deid")
    for word in (NAME, "MRN-1", "ACC992817", f"{ROOT}.", "Krautschnabel", "Ottilien", "STEP1", "77120", "20210105"):
        assert word not in shown
    assert date(2021, 1, 5) not in [row["study_date"] for row in loaded.rows("study_list", schema="deid")]


def test_ct_dose_names_series_and_report_with_their_devices() -> None:
    tables = """dicom_patient dicom_study dicom_series dicom_instance dicom_equipment series_equipment
        dicom_ct_acquisition dicom_xray_acquisition dicom_sr_content_item dicom_irradiation_event dicom_dose_summary"""
    with with_view("ct_dose", tables.split()) as connection:
        put(connection, "dicom_patient", [{"patient_key": "p", "patient_sex": "M"}])
        put(connection, "dicom_study", [{"study_key": "t", "patient_key": "p", "study_instance_uid": "1.1"}])
        series = [("ct", "CT", "Thorax", "1.2"), ("other", "CT", "Scout", "1.3"), ("sr", "SR", "Dose report", "1.4")]
        put(
            connection,
            "dicom_series",
            [
                {
                    "series_key": key,
                    "study_key": "t",
                    "modality": modality,
                    "protocol_name": text,
                    "series_instance_uid": uid,
                }
                for key, modality, text, uid in series
            ],
        )
        put(connection, "dicom_equipment", [{"equipment_key": "e", "manufacturer_model_name": "Scanner"}])
        put(
            connection,
            "series_equipment",
            [{"series_key": key, "equipment_key": "e", "purpose_of_reference": "ACQUISITION"} for key in ("ct", "sr")],
        )
        put(
            connection,
            "dicom_instance",
            [{"instance_key": f"i{key}", "series_key": key, "version_state": "CURRENT"} for key, *_ in series],
        )
        put(
            connection,
            "dicom_ct_acquisition",
            [
                {"instance_key": "ict", "frame_number": 0, "ctdi_vol": 7.5, "kvp": 120.0},
                {"instance_key": "iother", "frame_number": 0, "kvp": 100.0},
            ],
        )
        root = {"code_value": "113701", "coding_scheme_designator": "DCM"}
        total = {"code_value": "113813", "coding_scheme_designator": "DCM"}
        unit = {"code_value": "mGy.cm"}
        items: list[dict[str, Any]] = [
            {"instance_key": "isr", "node_path": "1", "concept_name": root},
            {"instance_key": "isr", "node_path": "1.1", "parent_node_path": "1", "concept_name": total,
             "numeric_value": 310.5, "measurement_units": unit},
        ]  # fmt: skip
        put(connection, "dicom_sr_content_item", items)
        header, report = read(connection, "ct_dose", "dose_source")
    assert (header["series_instance_uid"], header["protocol_name"], header["ctdi_vol"]) == ("1.2", "Thorax", 7.5)
    assert (header["manufacturer_model_name"], header["patient_sex"], header["kvp"]) == ("Scanner", "M", 120.0)
    assert (report["series_key"], report["series_instance_uid"], report["sr_instance_key"]) == (None, None, "isr")
    assert (report["dose_length_product"], report["manufacturer_model_name"]) == (310.5, "Scanner")


def recipes() -> list[str]:
    return re.findall(r"```sql\n(.*?)```", RECIPES.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("sql", recipes(), ids=lambda sql: sql.split("\n")[0][:40])
def test_every_recipe_runs_as_it_is_written(loaded: Loaded, sql: str) -> None:
    lake = loaded.research if re.search(r"\b(deid|gold)\.", sql) else loaded.identified
    assert lake.query(sql).num_columns


def test_a_person_can_read_the_views_with_the_command_for_queries(loaded: Loaded) -> None:
    found = run_query("SELECT local_path FROM silver.object_metadata WHERE has_error", [loaded.settings.identified])
    assert [Path(path).stem for path in found["local_path"].to_pylist()] == ["cut off"]


def test_the_recipes_use_every_view_people_start_with() -> None:
    text = "\n".join(recipes())
    assert not [
        name
        for name in (*OVERVIEWS, "object_metadata", "issue_summary", "daily_arrivals", "ct_dose")
        if name not in text
    ]
