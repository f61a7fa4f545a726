"""Tests of taking labels in: from files, reports and views of all batches to rows of the research side."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from imaging_pipeline.catalog.inspection import inspect_objects
from imaging_pipeline.cli import main
from imaging_pipeline.deid.profile import load_profile
from imaging_pipeline.errors import ImagingError, Stage, TransientError
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.silver import load_silver
from imaging_pipeline.objects.model import key_of
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.pneumonia.label_import import LabelCounts, import_labels, row_token
from imaging_pipeline.settings import Settings
from imaging_pipeline_tests.conftest import folder
from imaging_pipeline_tests.conversion.pictures import encoded, grey, put
from imaging_pipeline_tests.deid.corpus import NAME, PATIENT_ID, ROOT, chest_film, encode, keys
from imaging_pipeline_tests.metadata.headers import memory_lake

HEADER = b"patientId,x,y,width,height,Target\n"


class Landing:
    """Released films and what is said about them, in both lakes."""

    def __init__(self, path: Path, identified: Lake, research: Lake) -> None:
        self.path, self.identified, self.research = path, identified, research
        self.uids: list[str] = []
        self.batches = 0
        self.profile = "research"
        path.mkdir()

    def put(self, name: str, data: bytes, modified: int = 0) -> None:
        """A file, one second younger with each step of ``modified``."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        os.utime(target, (1_700_000_000 + modified,) * 2)

    def film(self, name: str, number: int, **attributes: object) -> str:
        """A film under a name; its original UID."""
        uid = f"{ROOT}.3.{number}"
        self.put(name, encode(chest_film(SOPInstanceUID=uid, **attributes)))
        self.uids.append(uid)
        return uid

    def load(self) -> LabelCounts:
        """Take in what is there as one more batch, release all films and bring the labels up to date."""
        self.batches += 1
        batch = f"b{self.batches}"
        known = {str(key) for (key,) in self.identified.rows("SELECT object_key FROM bronze.object_catalog")}
        listed = [target for target in folder(self.path).list(datetime.now(UTC)) if target.key not in known]
        with self.identified.transaction():  # as `load_bronze` does, without its processes
            for table, rows in inspect_objects(ObjectReader(), batch, listed).items():
                self.identified.replace_batch("bronze", table, rows, batch)
        load_silver(self.identified, batch)
        self.release(self.uids)
        return self.labels()

    def release(self, uids: list[str]) -> None:
        rows: list[dict[str, object]] = [
            {
                "instance_key": key_of(keys().uid(uid)),
                "series_key": "s",
                "sop_instance_uid": keys().uid(uid),
                "arrival_batch": "b1",
                "row_version": "1",
            }
            for uid in uids
        ]
        with self.research.transaction():
            self.research.replace_batch("deid", "dicom_instance", registry.table("dicom_instance").rows(rows), "b1")

    def vanish(self, name: str) -> None:
        (self.path / name).unlink()
        with self.identified.transaction():
            self.identified.connection.execute(
                "UPDATE bronze.object_catalog SET deleted_at = now() WHERE storage_uri LIKE '%' || ?", [name]
            )

    def labels(self) -> LabelCounts:
        return import_labels(self.identified, self.research, keys(), ObjectReader(), load_profile(self.profile))

    def rows(self, columns: str, level: str = "INSTANCE") -> list[tuple[object, ...]]:
        """Columns of ``gold.label``, in their own order."""
        return self.research.rows(f"SELECT {columns} FROM gold.label WHERE subject_level = ? ORDER BY ALL", [level])

    def issues(self) -> list[str]:
        """Messages about label files."""
        rows = self.identified.rows(
            "SELECT message FROM bronze.ingest_issue WHERE stage = ? ORDER BY 1", [str(Stage.LOAD)]
        )
        return [str(message) for (message,) in rows]


@pytest.fixture
def landing(tmp_path: Path) -> Iterator[Landing]:
    with memory_lake("identified") as identified, memory_lake("research") as research:
        yield Landing(tmp_path / "landing", identified, research)


def research_key(uid: str) -> str:
    return key_of(keys().uid(uid))


@pytest.fixture
def rsna(landing: Landing) -> Landing:
    """A film with a box."""
    landing.film("film.dcm", 1)
    landing.put("labels.csv", HEADER + b"film,1,2,3,4,1\n")
    landing.load()
    return landing


def counted(**expected: int) -> LabelCounts:
    return LabelCounts(**expected)


def test_a_film_gets_its_label_and_its_boxes_under_research_keys(rsna: Landing) -> None:
    key = research_key(rsna.uids[0])
    assert rsna.rows("subject_key, task, label_value, label_numeric, source, layout, method") == [
        (key, "pneumonia", "pneumonia", 1.0, "CSV:RSNA", "RSNA", "READING")
    ]
    assert rsna.rows("subject_key, bbox", "REGION") == [(key, [1.0, 2.0, 3.0, 4.0])]


def test_the_same_labels_taken_in_again_are_the_same_rows(rsna: Landing) -> None:
    before = rsna.rows("* EXCLUDE (_loaded_at)")
    assert rsna.labels() == counted(files=1, images=1, matched=1, labels=1, positive=1)
    assert rsna.rows("* EXCLUDE (_loaded_at)") == before


def test_the_key_holder_finds_the_row_of_a_label_again(rsna: Landing) -> None:
    digest = hashlib.sha256((rsna.path / "labels.csv").read_bytes()).hexdigest()
    assert rsna.rows("row_token") == [(row_token(keys(), digest, "2"),)]
    assert rsna.rows("row_token") != [(row_token(keys("another"), digest, "2"),)]


def test_a_label_file_that_vanished_takes_its_labels_with_it(rsna: Landing) -> None:
    rsna.vanish("labels.csv")
    assert rsna.labels() == counted()
    assert rsna.rows("*") == rsna.rows("*", "REGION") == []


def test_a_label_file_that_cannot_be_read_and_is_not_known_to_be_gone_changes_nothing(rsna: Landing) -> None:
    (rsna.path / "labels.csv").unlink()
    with pytest.raises(TransientError, match="no label changed"):
        rsna.labels()
    assert len(rsna.rows("*")) == 1


def test_an_image_that_was_deleted_gets_no_label(rsna: Landing) -> None:
    rsna.vanish("film.dcm")
    load_silver(rsna.identified, "b1")
    assert rsna.labels().matched == 0


def test_a_film_that_is_not_released_gets_no_label(rsna: Landing) -> None:
    rsna.release([])
    assert rsna.labels() == counted(files=1, images=1)
    assert rsna.rows("*") == []


def test_rows_that_cannot_be_used_become_issues_without_values_and_the_others_are_labels(landing: Landing) -> None:
    landing.film("a.dcm", 1)
    landing.film("b.dcm", 2)
    landing.put("labels.csv", HEADER + b"a,,,,,0\nsecret,1,2,3,4,7\nb,1,2,3,4,1\nb,,,,,0\nsecret,\xff,2,3,4,1\n")
    counts = landing.load()
    assert (counts.labels, counts.refused) == (1, 3)
    assert landing.rows("label_numeric") == [(0.0,)], "b is labelled yes and no"
    assert landing.issues() == [
        "line 3: expected Target 0 or 1",
        "line 5: expected the same label on all rows of an image",
        "line 6: expected UTF-8 text",
    ]
    load_silver(landing.identified, "b1")
    assert len(landing.issues()) == 3, "another stage's issues were replaced"
    landing.vanish("labels.csv")
    landing.labels()
    assert landing.issues() == []


def test_a_later_file_replaces_what_an_earlier_one_of_the_same_source_says(landing: Landing) -> None:
    landing.film("a.dcm", 1)
    landing.put("z.csv", HEADER + b"a,1,2,3,4,1\n", modified=1)
    landing.put("a.csv", HEADER + b"a,,,,,0\n", modified=2)
    landing.load()
    assert landing.rows("label_numeric") == [(0.0,)]
    assert landing.rows("*", "REGION") == []


def test_sources_and_annotators_that_disagree_stay_side_by_side(landing: Landing) -> None:
    uid = landing.film("a.dcm", 1)
    landing.put("rsna.csv", HEADER + b"a,1,2,3,4,1\n")
    landing.put(
        "readers.csv",
        f"sop_instance_uid,label,annotator,source\n{uid},0,Dr Grey,\n{uid},1,Dr Blue,\n{uid},0,,panel\n".encode(),
    )
    counts = landing.load()
    assert counts.labels == 4
    assert landing.rows("source, label_numeric, annotator IS NULL") == [
        ("CSV:PLAIN", 0.0, False),
        ("CSV:PLAIN", 1.0, False),
        ("CSV:RSNA", 1.0, True),
        ("CSV:panel", 0.0, True),
    ]
    assert len({key for (key,) in landing.rows("label_key")}) == 4


def test_names_that_several_films_share_are_no_names_unless_folders_tell_them_apart(landing: Landing) -> None:
    first = landing.film("one/film.dcm", 1)
    landing.film("two/film.dcm", 2)
    landing.put("labels.csv", b"image,label\nfilm.png,1\none/film.png,1\nthree/film,1\n")
    counts = landing.load()
    assert (counts.images, counts.matched, counts.ambiguous) == (3, 1, 1)
    assert landing.rows("subject_key") == [(research_key(first),)]


def test_no_word_of_a_label_file_goes_out_that_may_name_somebody(landing: Landing) -> None:
    uid = landing.film("a.dcm", 1)
    surname = NAME.split("^")[0]
    rows = [
        f"{uid},1,{surname},Krautschnabel,pneumonia",
        f"{uid},{surname},,Krautschnabel,pneumonia",
        f"{uid},1,{PATIENT_ID},,pneumonia",
        f"{uid},1,,,{surname}",
        f"{uid},1,,,subset {surname}",
        f"{uid},1,,,subset of {PATIENT_ID}",
        f"{uid},1,,,subset {PATIENT_ID.replace('-', ' ').lower()} group",
        f"{uid},1,,,subset of_{PATIENT_ID}",
        f"{uid},1,,,subset born 1950-01-01",
        f"{uid},1,,,subset matched films",
        f"{uid},7731945,,,pneumonia",
        f"{uid},77 31 94 5,,,pneumonia",
        f"{uid},bacterial pneumonia,north,Krautschnabel,pneumonia type",
    ]
    landing.put("labels.csv", "\n".join(["sop_instance_uid,label,source,annotator,task", *rows]).encode())
    landing.load()
    assert landing.rows("task, label_value, label_numeric, source") == [
        ("pneumonia type", "bacterial pneumonia", None, "CSV:north"),
        ("subset matched films", "subset matched films", 1.0, "CSV:PLAIN"),
    ]
    told = repr(landing.rows("*")) + repr(landing.issues())
    assert not [
        word for word in (surname, PATIENT_ID, "773194", "77 31", "Krautschnabel", uid, "labels.csv") if word in told
    ]
    assert len(landing.issues()) == 11


def test_times_of_labels_move_with_the_dates_of_the_patient_or_stay_out_as_the_profile_says(landing: Landing) -> None:
    uid = landing.film("a.dcm", 1)
    rows = f"{uid},1,one,2021-01-06T08:00:00\n{uid},1,two,1900-01-01\n{uid},1,three,9999-12-31\n"
    landing.put("labels.csv", f"sop_instance_uid,label,source,labelled_at\n{rows}".encode())
    landing.load()
    ((domain,),) = landing.identified.rows("SELECT patient_domain FROM silver.dicom_patient")
    said = datetime(2021, 1, 6, 8)  # noqa: DTZ001 - as in the lake
    shift = keys().date_shift(str(domain), PATIENT_ID)
    assert landing.rows("source, labelled_at") == [("CSV:one", said + shift), ("CSV:three", None), ("CSV:two", None)]
    landing.profile = "limited"
    landing.labels()
    assert landing.rows("labelled_at")[0] == (datetime(1900, 1, 1),)  # noqa: DTZ001
    assert (said,) in landing.rows("labelled_at")


def test_the_official_side_of_an_image_goes_with_its_label(landing: Landing) -> None:
    landing.film("patient1/study1/view1_frontal.dcm", 1)
    landing.put(
        "chexpert.csv",
        b"Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Pneumonia,Edema\n"
        b"CheXpert-v1.0/valid/patient1/study1/view1_frontal.jpg,Female,60,Frontal,AP,,-1.0,1.0\n",
    )
    landing.load()
    found = landing.rows("task, label_value, label_numeric, official_split, method")
    assert ("pneumonia", "uncertain", None, "val", "READING") in found
    assert ("edema", "edema", 1.0, "val", "READING") in found
    assert ("no finding", "not mentioned", None, "val", "READING") in found


def test_labels_of_an_imported_collection_reach_its_films(
    landing: Landing, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = put(tmp_path / "pictures", {f"{name}.png": encoded(grey(seed=seed)) for seed, name in enumerate("ab")})
    put(tmp_path, {"table.csv": b"file,patient_id,label,source,split\na.png,1,1,north,train\nb.png,2,0,north,test\n"})
    options = ["--csv", str(tmp_path / "table.csv"), "--out", str(landing.path / "cxr"), "--workers", "1"]
    assert main(["import-images", str(pictures), *options]) == 0
    landing.uids = [str(dcmread(landing.path / "cxr" / f"{name}.png.dcm").SOPInstanceUID) for name in "ab"]
    landing.load()
    first, second = map(research_key, landing.uids)
    assert landing.rows("subject_key, label_numeric, source, official_split") == sorted(
        [(first, 1.0, "CSV:north", "train"), (second, 0.0, "CSV:north", "test")]
    )


def code(value: str, scheme: str = "SCT") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, "meaning"
    return item


def item(value_type: str, concept: Dataset | None, *children: Dataset, **attributes: object) -> Dataset:
    """A content item."""
    ds = Dataset()
    ds.RelationshipType, ds.ValueType = "CONTAINS", value_type
    if concept is not None:
        ds.ConceptNameCodeSequence = [concept]
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    if children:
        ds.ContentSequence = list(children)
    return ds


def image(uid: str) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = chest_film().SOPClassUID, uid
    return item("IMAGE", None, ReferencedSOPSequence=[reference])


def stated(concept: Dataset, value: Dataset, *children: Dataset) -> Dataset:
    return item("CODE", concept, *children, ConceptCodeSequence=[value])


PNEUMONIA, FINDING, GROUP = code("233604007"), code("121071", "DCM"), code("125007", "DCM")
PRESENT, ABSENT, EQUIVOCAL = code("52101004"), code("272519000"), code("42425007")


def report(number: int, *children: Dataset, at: str = "20210107", verified: str = "UNVERIFIED") -> bytes:
    """A structured report about the patient of `chest_film`, in the same study."""
    ds = Dataset()
    ds.VerificationFlag = verified
    for element in chest_film():
        if element.keyword.startswith(("Patient", "Study", "Accession")) and element.keyword != "PatientOrientation":
            ds.add(element)
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.33", f"{ROOT}.9.{number}"
    ds.SeriesInstanceUID, ds.Modality = f"{ROOT}.8", "SR"
    ds.ContentDate, ds.ContentTime = at, "120000"
    ds.ValueType, ds.ConceptNameCodeSequence = "CONTAINER", [code("126000", "DCM")]
    observer = item("PNAME", code("121008", "DCM"), PersonName="Krautschnabel^Ilse")
    ds.ContentSequence = [observer, *children]
    return encode(ds)


def test_findings_of_a_report_are_labels_of_the_images_they_are_about(landing: Landing) -> None:
    first, second = landing.film("a.dcm", 1), landing.film("b.dcm", 2)
    prior = landing.film("prior.dcm", 3, StudyInstanceUID=f"{ROOT}.77", SeriesInstanceUID=f"{ROOT}.78")
    outline = item(
        "SCOORD", None, image(first), GraphicType="POLYLINE", GraphicData=[10.0, 5.0, 40.0, 5.0, 40.0, 25.0, 10.0, 5.0]
    )
    group = item("CONTAINER", GROUP, stated(FINDING, PNEUMONIA), outline)
    evaluation = stated(code("36118008"), ABSENT)
    library = item("CONTAINER", code("111028", "DCM"), image(first), image(second), image(prior))
    landing.put("report.dcm", report(1, group, evaluation, library))
    counts = landing.load()
    one, two = research_key(first), research_key(second)
    assert counts.reports == 1
    assert landing.rows("subject_key, task, label_numeric, source, method") == sorted(
        [
            (one, "pneumonia", 1.0, "SR", "REPORT"),
            (one, "pneumothorax", 0.0, "SR", "REPORT"),
            (two, "pneumothorax", 0.0, "SR", "REPORT"),
        ]
    )
    assert landing.rows("subject_key, bbox", "REGION") == [(one, [10.0, 5.0, 30.0, 20.0])]
    assert "Krautschnabel" not in repr(landing.rows("*"))
    assert all(annotator for (annotator,) in landing.rows("annotator"))


@pytest.mark.parametrize(
    ("evaluation", "expected"),
    [
        (stated(PNEUMONIA, PRESENT), [("pneumonia", 1.0)]),
        (stated(PNEUMONIA, EQUIVOCAL), [("uncertain", None)]),
        (stated(FINDING, PNEUMONIA, stated(code("1", "99X"), ABSENT)), [("no pneumonia", 0.0)]),
        (stated(FINDING, code("1", "99X")), []),
        (stated(PNEUMONIA, code("1", "99X")), []),
    ],
)
def test_a_report_may_say_that_a_finding_is_there_is_not_or_may_be(
    landing: Landing, evaluation: Dataset, expected: list[tuple[object, ...]]
) -> None:
    uid = landing.film("a.dcm", 1)
    landing.put("report.dcm", report(1, evaluation, image(uid)))
    landing.load()
    assert landing.rows("label_value, label_numeric") == expected


@pytest.mark.parametrize(("verified", "labels"), [("UNVERIFIED", 0), ("VERIFIED", 1)])
def test_what_an_algorithm_reports_is_a_label_once_a_person_has_verified_it(
    landing: Landing, verified: str, labels: int
) -> None:
    uid = landing.film("a.dcm", 1)
    algorithm = item("TEXT", code("111001", "DCM"), TextValue="a model")
    group = item("CONTAINER", GROUP, algorithm, stated(FINDING, PNEUMONIA))
    landing.put("1.dcm", report(1, group, image(uid), verified=verified))
    landing.load()
    assert len(landing.rows("*")) == labels


def test_the_later_of_two_reports_of_one_reader_counts(landing: Landing) -> None:
    uid = landing.film("a.dcm", 1)
    landing.put("1.dcm", report(1, stated(PNEUMONIA, PRESENT), image(uid), at="20210109"))
    landing.put("2.dcm", report(2, stated(PNEUMONIA, ABSENT), image(uid), at="20210108"))
    landing.load()
    assert landing.rows("label_numeric") == [(1.0,)]


def test_a_report_that_contradicts_itself_gives_no_label_but_an_issue(landing: Landing) -> None:
    uid = landing.film("a.dcm", 1)
    landing.put("1.dcm", report(1, stated(PNEUMONIA, PRESENT), stated(PNEUMONIA, ABSENT), image(uid)))
    landing.load()
    assert landing.rows("*") == []
    assert landing.issues() == ["content item 1.3: expected the same label on all rows of an image"]


@pytest.fixture
def with_view(identified: Lake, research: Lake, settings: Settings) -> tuple[Lake, Lake, Settings]:
    """Both lakes as they are in use, with one released film and a view of labels."""
    uid = keys().uid("1.2.3")
    row: dict[str, object] = {
        "instance_key": key_of(uid),
        "series_key": "s",
        "sop_instance_uid": uid,
        "arrival_batch": "b1",
        "row_version": "1",
    }
    with research.transaction():
        research.replace_batch("deid", "dicom_instance", registry.table("dicom_instance").rows([row]), "b1")
        research.connection.execute("CREATE SCHEMA label_source")
    return identified, research, settings


def test_a_view_of_the_research_lake_is_a_source_of_labels(with_view: tuple[Lake, Lake, Settings]) -> None:
    identified, research, settings = with_view
    research.connection.execute(
        "CREATE VIEW label_source.second_reading AS "
        "SELECT sop_instance_uid, 'yes' AS label, 0.9 AS confidence FROM deid.dicom_instance "
        "UNION ALL SELECT 'nobody', 'yes', 0.9 UNION ALL SELECT sop_instance_uid, NULL, 0.9 FROM deid.dicom_instance"
    )
    counts = import_labels(identified, research, keys(), ObjectReader(), load_profile(), settings.research)
    assert asdict(counts) | {"views": 1, "matched": 1, "images": 2, "labels": 1, "refused": 1} == asdict(counts)
    assert research.rows("SELECT subject_key, source, label_numeric, confidence, method FROM gold.label") == [
        (key_of(keys().uid("1.2.3")), "SQL:second_reading", 1.0, 0.9, None)
    ]
    research.connection.execute("DROP VIEW label_source.second_reading")
    import_labels(identified, research, keys(), ObjectReader(), load_profile(), settings.research)
    assert research.rows("SELECT * FROM gold.label") == []


def test_a_view_cannot_read_the_identified_side_or_files(
    with_view: tuple[Lake, Lake, Settings], tmp_path: Path
) -> None:
    identified, research, settings = with_view
    (tmp_path / "secret.csv").write_text("sop_instance_uid,label\n1.2.3,1\n")
    research.connection.execute(
        f"CREATE VIEW label_source.spy AS SELECT * FROM read_csv('{tmp_path / 'secret.csv'}', all_varchar=true)"
    )
    with pytest.raises(ImagingError, match=r"view label_source\.spy cannot be read") as caught:
        import_labels(identified, research, keys(), ObjectReader(), load_profile(), settings.research)
    assert "secret" not in str(caught.value)
