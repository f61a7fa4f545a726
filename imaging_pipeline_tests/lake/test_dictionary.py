"""The dictionary: joins, search, pages and the table in the lake, all against the registry as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from imaging_pipeline.lake import registry
from imaging_pipeline.lake.dictionary import joins, search
from imaging_pipeline.lake.dictionary.attributes import (
    attribute_by_keyword,
    path_of,
    private_names,
    read_tag,
    spell_path,
    tags_of,
)
from imaging_pipeline.lake.dictionary.pages import pages, write_pages
from imaging_pipeline.lake.dictionary.rows import dictionary_rows, write_dictionary
from imaging_pipeline.lake.store import Lake

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"

PHRASES = {
    "slice distance": "spacing_between_slices slice_spacing_mm",
    "gap between slices": "spacing_between_slices slice_spacing_mm n_missing_slices",
    "slice thickness": "slice_thickness",
    "kV": "kvp",
    "tube voltage": "kvp",
    "mAs": "exposure",
    "tube current": "x_ray_tube_current tube_current_ma",
    "birthday": "patient_birth_date",
    "DOB": "patient_birth_date",
    "date of birth": "patient_birth_date",
    "who read it": "name_of_physicians_reading_study",
    "reading radiologist": "name_of_physicians_reading_study",
    "who ordered the exam": "referring_physician_name requesting_physician",
    "technologist": "operators_name",
    "field strength": "magnetic_field_strength",
    "tesla": "magnetic_field_strength",
    "dose": "dicom_dose_summary ctdi_vol dose_length_product organ_dose",
    "CT dose": "ctdi_vol dicom_dose_summary dose_length_product",
    "DLP": "dose_length_product dlp_mgy_cm",
    "dose area product": "dose_area_product_total image_and_fluoroscopy_area_dose_product dap_gy_m2",
    "MRN": "patient_id",
    "medical record number": "patient_id",
    "gender": "patient_sex",
    "how old is the patient": "patient_age patient_age_years",
    "body weight": "patient_weight",
    "height of the patient": "patient_size",
    "scanner model": "manufacturer_model_name",
    "vendor": "manufacturer manufacturer_normalized",
    "serial number of the device": "device_serial_number",
    "hospital name": "institution_name",
    "AE title": "source_application_entity_title performed_station_ae_title",
    "exam date": "study_date",
    "when was the study done": "study_date study_datetime",
    "order number":
        "accession_number placer_order_number_imaging_service_request filler_order_number_imaging_service_request",
    "file path": "storage_uri object_path relative_path",
    "where is the file": "storage_uri object_path relative_path dicom_file_location",
    "file size": "file_size_bytes length",
    "TE": "echo_time effective_echo_time",
    "TR": "repetition_time",
    "b value": "diffusion_b_value",
    "reconstruction kernel": "convolution_kernel",
    "contrast agent": "contrast_bolus_agent contrast_bolus_agent_code dicom_contrast_bolus",
    "left or right": "laterality image_laterality",
    "body part": "body_part_examined",
    "window level": "window_center window_width",
    "compression": "transfer_syntax_uid lossy_image_compression is_encapsulated",
    "burned in text": "burned_in_annotation",
    "number of slices": "n_slices number_of_slices number_of_series_related_instances",
    "number of images in a series": "number_of_series_related_instances",
    "pixel size": "pixel_spacing imager_pixel_spacing",
    "image width": "image_columns",
    "PA or AP view": "view_position",
    "tracer": "radiopharmaceutical radiopharmaceutical_code",
    "injected activity": "radionuclide_total_dose",
    "tumor contour": "roi_name dicom_rt_roi",
    "why was the exam ordered": "reason_for_the_requested_procedure reason_for_requested_procedure_code_sequence",
    "report text": "text_value",
    "train test split": "split",
    "what went wrong with a file": "ingest_issue issue_code message",
    "software version of the scanner": "software_versions",
    "pregnant": "pregnancy_status",
    "heart rate": "heart_rate",
    "gantry tilt": "gantry_detector_tilt gantry_tilt_degrees",
    "pitch": "spiral_pitch_factor",
    "patient position prone supine": "patient_position",
    "private tags": "dicom_private_creator private_creator is_private",
    "duplicate files": "sha256 checksum_sha256 role",
}  # fmt: skip
"""What people type, and the tables or columns one of which must be among the first three."""

UNSEEN_PHRASES = {
    "phone number of patient": "patient_telephone_numbers",
    "race": "ethnic_group",
    "doctor who sent the patient": "referring_physician_name requesting_physician",
    "name of the scanner": "station_name manufacturer_model_name dicom_equipment",
    "CT scanner software": "software_versions",
    "how long was the exposure": "exposure_time",
    "inversion recovery time": "inversion_time",
    "acquisition plane": "orientation_plane dicom_image_plane",
    "matrix": "image_rows image_columns acquisition_matrix",
    "bit depth": "bits_stored bits_allocated",
    "grayscale inverted": "photometric_interpretation presentation_lut_shape",
    "injection time":
        "radiopharmaceutical_start_time radiopharmaceutical_start_datetime contrast_bolus_start_time",
    "half life of the isotope": "radionuclide_half_life",
    "breast compression force": "compression_force",
    "field of view":
        "reconstruction_diameter field_of_view_dimensions field_of_view_shape data_collection_diameter",
    "coil used": "receive_coil_name transmit_coil_name",
    "is the study complete": "state study_state",
    "which files could not be read": "parse_status ingest_issue",
    "missing slices": "n_missing_slices",
    "lesion segmentation label": "segment_label",
    "measurement in report": "numeric_value dicom_sr_content_item measurement_units",
    "PDF attachments": "dicom_encapsulated_document",
    "department": "institutional_department_name",
    "protocol": "protocol_name",
    "scout image": "is_localizer",
    "acceleration factor": "parallel_reduction_factor_in_plane",
    "air kerma": "dose_rp_gy dose_area_product_total dap_gy_m2 image_and_fluoroscopy_area_dose_product",
    "last name": "patient_name",
    "study comments by technician":
        "operators_name image_comments comments_on_the_performed_procedure_step patient_comments",
    "color images": "samples_per_pixel photometric_interpretation",
    "ultrasound probe": "transducer_type transducer_frequency transducer_data",
    "similar images": "image_embedding embedding_vector",
    "AI score": "probability",
    "when did the image arrive": "first_seen_at _loaded_at arrival_batch",
    "checksum": "sha256 checksum_sha256",
    "time between injection and scan":
        "radiopharmaceutical_start_time radiopharmaceutical_start_datetime contrast_bolus_start_time",
    "table height": "table_height",
    "signed report": "verification_flag verifying_observer",
    "diffusion direction": "diffusion_gradient_orientation diffusion_directionality",
    "cardiac phase": "nominal_percentage_of_cardiac_phase trigger_time",
}  # fmt: skip
"""The same, written when the synonyms were there already and never used to make them better."""


def first_three(phrase: str) -> set[str]:
    return {hit.name for hit in search.find(phrase).hits[:3]}


@pytest.fixture(scope="module")
def tables() -> Iterator[duckdb.DuckDBPyConnection]:
    """Every table with one row, in which every text is ``k`` and every number 1."""
    with duckdb.connect() as connection:
        for schema in registry.SCHEMA_LAKES:
            connection.execute(f"CREATE SCHEMA {schema}")
            for table in registry.tables_of(schema):
                values = {"VARCHAR": "'k'", "INTEGER": "1", "BIGINT": "1"}
                columns = (f'{values.get(c.type, "NULL")}::{c.sql_type} AS "{c.name}"' for c in table.columns)
                connection.execute(f"CREATE TABLE {schema}.{table.name} AS SELECT {', '.join(columns)}")
        yield connection


WITHOUT_PATIENTS = {
    "bronze.ingest_run",
    "gold.ingest_issue",  # its object is in the other lake
    "deid.deid_evidence",  # counts of a batch
    "gold.drift",  # figures of a batch
    *(f"silver.{name}" for name in ("dicom_coded_concept", "dicom_private_creator", "data_dictionary")),
    *(f"deid.{name}" for name in ("dicom_coded_concept", "dicom_private_creator", "data_dictionary")),
    *(f"silver.{name}" for name in ("daily_arrivals", "daily_metrics", "issue_summary", "modality_summary")),
    *(f"deid.{name}" for name in ("daily_metrics", "modality_summary")),
}

PLACES = [(schema, table.name) for schema in registry.SCHEMA_LAKES for table in registry.tables_of(schema)]


@pytest.mark.parametrize(("schema", "name"), PLACES, ids=lambda each: each)
def test_the_way_up_to_the_patient_runs_and_loses_no_row(
    tables: duckdb.DuckDBPyConnection, schema: str, name: str
) -> None:
    lines = joins.join_sql(schema, name)
    assert tables.execute(f"SELECT count(*) {' '.join(lines)}").fetchall() == [(1,)]
    assert (".dicom_patient" in lines[-1]) == (f"{schema}.{name}" not in WITHOUT_PATIENTS)


def test_every_relation_names_columns_that_are_there_and_are_unique_by_key() -> None:
    for schema, name in PLACES:
        for relation in joins.relations(schema, name):
            here, there = registry.table(name), registry.table(relation.to_table[1])
            assert {column.name for column in here.columns} >= set(relation.columns)
            assert {column.name for column in there.columns} >= set(relation.to_columns)
            assert relation.to_table[0] in there.schemas
            assert registry.SCHEMA_LAKES[relation.to_table[0]] == registry.SCHEMA_LAKES[schema]


def test_every_key_of_another_table_is_found_to_refer_to_it() -> None:
    unrelated = set()
    for schema, name in PLACES:
        table = registry.table(name)
        related = {column for relation in joins.relations(schema, name) for column in relation.columns}
        keys = {c.name for c in table.columns if c.name.endswith("_key")} - related
        unrelated |= {f"{schema}.{name}.{key}" for key in keys if (key,) != table.key}
    assert unrelated == {
        "bronze.ingest_run.partition_key",  # Dagster's
        "deid.made_object.object_key",  # the object catalog is in the other lake
        "gold.lung_segmentation.segmentation_key",  # of the SEG in deid, when it was written
        "silver.result_object.prediction_key",  # predictions are in the other lake
        "deid.dicom_file_location.object_key",  # the catalog is in the other lake
        "deid.dicom_file_location.uid_key",
        "deid.dicom_instance.object_key",
        "gold.ingest_issue.object_key",
        "silver.dicom_file_location.uid_key",  # names no row: shared by all contents under a UID
        "deid.series_volume_geometry.split_key",  # what tells volumes apart, no key of a table
        "silver.series_volume_geometry.split_key",
    }


def test_relations_are_those_of_the_model() -> None:
    def of(place: str) -> list[str]:
        return [str(relation) for relation in joins.relations(*place.split("."))]

    assert of("silver.dicom_series") == ["study_key → silver.dicom_study (study_key)"]
    assert "tensor_key → gold.image_tensor (tensor_key)" in of("gold.dataset_member")
    assert "instance_key → deid.dicom_instance (instance_key)" in of("gold.model_prediction")
    assert "to_sop_instance_uid → silver.dicom_instance (sop_instance_uid)" in of("silver.dicom_reference")
    assert "referenced_series_key → deid.dicom_series (series_key)" in of("deid.dicom_segmentation_metadata")
    assert "subject_key → deid.dicom_instance (instance_key)" in of("gold.label")
    whole = "instance_key, frame_number → silver.dicom_frame (instance_key, frame_number) (frame 0: all its frames)"
    assert whole in of("silver.dicom_ct_acquisition")
    series = "series_key → silver.dicom_series (series_key)"
    assert of("silver.dicom_contributing_equipment") == [series]  # no item_index: it counts its own sequence


@pytest.mark.parametrize(("phrase", "names"), PHRASES.items(), ids=list(PHRASES))
def test_what_people_type_finds_the_right_column_among_the_first_three(phrase: str, names: str) -> None:
    assert first_three(phrase) & set(names.split())


def test_phrases_that_nobody_thought_of_are_found_as_well() -> None:
    missed = [phrase for phrase, names in UNSEEN_PHRASES.items() if not first_three(phrase) & set(names.split())]
    assert len(missed) <= len(UNSEEN_PHRASES) // 10, missed


def test_synonyms_are_of_tables_and_columns_that_exist() -> None:
    assert set(search.synonyms()) <= {*registry.tables(), *search.columns_by_name()}
    assert all(len(set(phrases)) == len(phrases) for phrases in search.synonyms().values())


def test_a_misspelt_word_is_replaced_and_said() -> None:
    found = search.find("recontruction kernl")
    assert found.corrected == {"recontruction": "reconstruction", "kernl": "kernel"}
    assert found.hits[0].name == "convolution_kernel"


def test_an_attribute_without_a_column_is_found_before_columns_that_have_only_one_of_the_words() -> None:
    hits = search.find("what is the insurance plan").hits
    assert (hits[0].kind, hits[0].name) == ("attribute", "00101050")


@pytest.mark.parametrize(
    "spelling", ["(0010,0020)", "0010,0020", "00100020", "0x00100020", "0010 0020", "( 0010 , 0020 )", "0010|0020"]
)
def test_a_tag_is_read_in_every_spelling(spelling: str) -> None:
    assert read_tag(spelling) == "00100020"


def test_words_and_numbers_are_no_tags() -> None:
    assert [read_tag(text) for text in ("patient", "0010002", "dose", "1.2.840.10008", "", "00100020 0")] == [None] * 6


def test_keywords_are_known_in_either_case_unless_they_are_plain_words() -> None:
    assert attribute_by_keyword("patientbirthdate") == attribute_by_keyword("PatientBirthDate") is not None
    assert attribute_by_keyword("Date") is not None
    assert attribute_by_keyword("date") is None


def test_creators_of_a_private_tag_are_named() -> None:
    assert ("SIEMENS MR HEADER", "B_value") in private_names("0019100C")


def test_every_column_with_a_tag_shows_an_attribute_of_the_dictionary() -> None:
    for table in registry.tables().values():
        for column in table.columns:
            assert bool(tags_of(table, column)) == bool(column.tag), f"{table.name}.{column.name}"
            assert bool(column.tag) == bool(column.keyword), f"{table.name}.{column.name}"


def test_a_nested_attribute_is_found_at_its_whole_path() -> None:
    table = registry.table("dicom_request_attributes")
    column = next(each for each in table.columns if each.name == "requested_procedure_id")
    assert spell_path(path_of(table, column)) == "(0040,0275) > (0040,1001)"
    table = registry.table("dicom_nuclear_acquisition")  # within the item or, as usual, at the top level
    column = next(each for each in table.columns if each.name == "suv_type")
    assert spell_path(path_of(table, column)) == "(0054,1006)"


def test_every_column_has_a_meaning() -> None:
    silent = [row for lake in ("identified", "research") for row in dictionary_rows(lake) if not row["description"]]
    assert not silent
    repeated = {
        f"{row['table_name']}.{row['column_name']}"
        for row in dictionary_rows("identified")
        if not row["keyword"] and row["description"] == str(row["column_name"]).replace("_", " ")
    }
    assert not repeated


def test_the_reference_pages_are_up_to_date() -> None:
    for name, text in pages().items():
        assert (REFERENCE / name).read_text(encoding="utf-8") == text, f"{name}: run make docs"


def test_the_pages_hold_every_table_column_and_relation_and_link_to_each_other(tmp_path: Path) -> None:
    write_pages(tmp_path)
    texts = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    for schema, name in PLACES:
        home = texts[f"{registry.table(name).schemas[0]}.md"]
        section = home.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert f"`{schema}.{name}`" in section
        for column in registry.table(name).columns:
            assert f"| `{column.name}`" in section
    targets = {f"{page}#{heading}" for page, text in texts.items() for heading in _headings(text)} | set(texts)
    for text in texts.values():
        links = {part.partition(")")[0] for part in text.split("](")[1:]}
        assert links <= targets


def _headings(text: str) -> list[str]:
    return [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]


@pytest.mark.parametrize("lake_name", ["identified", "research"])
def test_the_dictionary_in_the_lake_is_the_registry_and_is_written_only_when_it_differs(
    lake_name: str, request: pytest.FixtureRequest
) -> None:
    lake: Lake = request.getfixturevalue(lake_name)
    schema = {"identified": "silver", "research": "deid"}[lake_name]
    write_dictionary(lake)
    with lake.transaction():  # an older registry had one column less and another unit
        lake.connection.execute(f"DELETE FROM {schema}.data_dictionary WHERE column_name = 'modality'")
        lake.connection.execute(f"UPDATE {schema}.data_dictionary SET unit = 'parsec' WHERE unit = 'mm'")
    assert write_dictionary(lake)
    snapshot = lake.snapshot_id()
    assert not write_dictionary(lake)
    assert lake.snapshot_id() == snapshot

    stored = lake.query(f"SELECT * EXCLUDE (_loaded_at) FROM {schema}.data_dictionary").to_pylist()
    assert sorted(stored, key=str) == sorted(dictionary_rows(lake_name), key=str)
    found = lake.query(f"SELECT schema_name, table_name, column_name, data_type FROM {schema}.data_dictionary")
    there = lake.query(
        "SELECT schema_name, table_name, column_name FROM duckdb_columns() WHERE database_name = ?", [lake_name]
    )
    assert _names(found.to_pylist()) == _names(there.to_pylist())


def _names(rows: list[dict[str, str]]) -> set[tuple[str, str, str]]:
    return {(row["schema_name"], row["table_name"], row["column_name"]) for row in rows}


def test_a_row_of_the_dictionary_says_what_a_column_is() -> None:
    rows = {(row["table_name"], row["column_name"]): row for row in dictionary_rows("identified")}
    spacing = rows["dicom_image_plane", "spacing_between_slices"]
    assert (spacing["dicom_tag"], spacing["unit"], spacing["category"]) == ("(0018,0088)", "mm", "attribute")
    assert "slice distance" in str(spacing["search_text"])
    key = rows["dicom_image_plane", "instance_key"]
    assert key["constraints"] == "PRIMARY KEY (instance_key, frame_number); NOT NULL"
    assert "silver.dicom_instance (instance_key)" in str(key["relationships"])
    assert rows["dicom_series", "study_key"]["category"] == "key"
    assert rows["dicom_study", "arrival_batch"]["category"] == "bookkeeping"
    assert rows["dicom_study", "study_datetime"]["category"] == "derived"
    name = rows["dicom_patient", "patient_name"]
    assert (name["phi_class"], name["ps3_15_basic_action"]) == ("direct", "Z")
