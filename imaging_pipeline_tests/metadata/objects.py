"""Objects built by the templates of the standard, read back from their bytes, and headers broken at random places."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from imaging_pipeline.dicom.header import read_header
from imaging_pipeline.errors import Issue, PoisonInput
from imaging_pipeline.lake.registry import Table
from imaging_pipeline.metadata.projection import Elements, Row
from imaging_pipeline.metadata.tolerance import MAX_ISSUES

TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"

REAL_OBJECTS = Path(__file__).parents[3] / "shared" / "data" / "real_dicom"
"""Objects of public test suites, where this machine has them."""

RowMaker = Callable[[Elements, Table], tuple[list[Row], list[Issue]]]


def of_file(path: Path) -> Elements:
    """The parsed header of a file."""
    return dict(json.loads(read_header(path.read_bytes()).json))


def real_objects() -> Iterator[Elements]:
    """Headers of the objects of public test suites, large ones left out."""
    for path in sorted(REAL_OBJECTS.rglob("*.dcm")):
        if path.stat().st_size < 2**20:
            with suppress(PoisonInput):
                yield of_file(path)


def of_test_file(name: str) -> Elements:
    """The parsed header of a file that comes with pydicom."""
    return of_file(TEST_FILES / name)


def of_dataset(dataset: Dataset, sop_class: str = "1.2.840.10008.5.1.4.1.1.88.33") -> Elements:
    """The parsed header of a data set, written to bytes first."""
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return dict(json.loads(read_header(buffer.getvalue()).json))


def coded(value: str, meaning: str = "meaning", scheme: str = "DCM") -> Dataset:
    """A code sequence item."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def content(value_type: str, name: str, *children: Dataset, relationship: str = "CONTAINS", **values: Any) -> Dataset:
    """A content item whose name is a code of DICOM's own."""
    item = Dataset()
    item.RelationshipType, item.ValueType = relationship, value_type
    item.ConceptNameCodeSequence = [coded(name)]
    for keyword, value in values.items():
        setattr(item, keyword, value)
    if children:
        item.ContentSequence = list(children)
    return item


def number(name: str, value: float | str | Sequence[float], unit: str, **more: Any) -> Dataset:
    """A numeric content item with a UCUM unit."""
    measured = Dataset()
    measured.NumericValue = value
    measured.MeasurementUnitsCodeSequence = [coded(unit, scheme="UCUM")]
    return content("NUM", name, MeasuredValueSequence=[measured], **more)


def report(title: str, *children: Dataset) -> Dataset:
    """A report with its content."""
    root = content("CONTAINER", title, *children)
    del root.RelationshipType
    return root


def ct_dose_report() -> Dataset:
    """One acquisition (TID 10013) of a CT with two tubes, and the total (TID 10012)."""
    acquisition = content(
        "CONTAINER",
        "113819",
        content("TEXT", "125203", TextValue="Chest"),
        content("CODE", "123014", ConceptCodeSequence=[coded("51185008", "Chest", "SCT")]),
        content("CODE", "113820", ConceptCodeSequence=[coded("P5-08001", "Spiral", "SRT")]),
        content("UIDREF", "113769", UID="1.2.3.4"),
        content(
            "CONTAINER",
            "113822",
            number("113824", 2.5, "s"),
            content("CONTAINER", "113831", number("113733", 120, "kV"), number("113734", 200, "mA")),
            content("CONTAINER", "113831", number("113733", 80, "kV"), number("113734", 400, "mA")),
        ),
        content("CONTAINER", "113829", number("113830", 7.5, "mGy"), number("113838", 310.5, "mGy.cm")),
    )
    total = content("CONTAINER", "113811", number("113813", 310.5, "mGy.cm"))
    return report("113701", total, acquisition)


def xray_dose_report() -> Dataset:
    """Two events (TID 10003) on the two planes of an angiography device, and the totals of both (TID 10002)."""
    events = [
        content(
            "CONTAINER",
            "113706",
            content("DATETIME", "111526", DateTime=f"2026010208{minute:02}00"),
            content("CODE", "113721", ConceptCodeSequence=[coded("P5-06000", "Fluoroscopy", "SRT")]),
            content("UIDREF", "113769", UID=f"1.2.3.{minute}"),
            number("122130", area_dose, unit),
            number("113738", 0.002, "Gy"),
            number("113733", 70 + minute, "kV"),
            number("113824", 1500, "ms"),
        )
        for minute, area_dose, unit in ((1, 12.5, "uGy.m2"), (2, 0.00002, "Gy.m2"))
    ]
    totals = [
        content("CONTAINER", "113702", number("113722", 0.0000125, "Gy.m2")),
        content("CONTAINER", "113702", number("113722", 0.00002, "Gy.m2")),
    ]
    return report("113701", *totals, *events)


def broken(elements: Elements, seed: int) -> Elements:
    """A copy of a header in which up to five parts, at any depth, are something else."""
    chance = random.Random(seed)
    made: Any = json.loads(json.dumps(elements))
    for _ in range(chance.randint(1, 5)):
        places = list(_places(made))
        if places:
            container, key = chance.choice(places)
            container[key] = chance.choice(_ANYTHING)(container[key])
    return made if isinstance(made, dict) else {}


def assert_survives(make: RowMaker, table: Table, elements: Elements, cases: int = 150, rows_per_item: int = 1) -> None:
    """Whatever becomes of a header, its rows fit the table and are not more than it has items."""
    for seed in range(cases):
        damaged = broken(elements, seed)
        rows, issues = make(damaged, table)
        size = sum(1 for container, _ in _places(damaged) if isinstance(container, dict))
        assert len(rows) <= size * rows_per_item
        assert len(issues) <= MAX_ISSUES
        keys = {"instance_key": "i", "arrival_batch": "b", "row_version": "v"}
        assert table.rows([row | keys for row in rows]).num_rows == len(rows)
        keyed = [tuple((row | keys)[name] for name in table.key) for row in rows]
        assert len(set(keyed)) == len(keyed)


_ANYTHING: tuple[Callable[[Any], Any], ...] = (
    lambda _: None,
    lambda _: "",
    lambda _: "no such thing",
    lambda _: "1e400",
    lambda _: "NaN",
    lambda _: -1,
    lambda _: 10**30,
    lambda _: 1.5,
    lambda _: True,
    lambda _: [],
    lambda _: {},
    lambda _: [None],
    lambda _: {"vr": "SQ", "Value": [{}, None, "x", 7, [[]]]},
    lambda _: {"vr": "SQ"},
    lambda _: {"Value": {"a": 1}},
    lambda was: [was, was, was],
    lambda was: {"Value": was},
    lambda was: [was],
)


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a tree of dictionaries and lists, as container and key."""
    waiting = [tree]
    while waiting:
        container = waiting.pop()
        keys = list(container) if isinstance(container, dict) else range(len(container))
        for key in keys:
            yield container, key
            if isinstance(container[key], dict | list):
                waiting.append(container[key])
