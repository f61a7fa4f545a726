"""Tests of finding things by the names that tables give them."""

from __future__ import annotations

import pytest

from imaging_pipeline.conversion.names import NameIndex

PATHS = {
    1: "landing/one/film.dcm",
    2: "landing/two/film.dcm",
    3: "landing/1.2.840.10008.dcm",
    4: "landing/patient1/study1/view1.jpg.dcm",
    5: "landing/patient2/study1/view1.jpg.dcm",
    6: "landing/film.old",
    7: "scan",
}


@pytest.fixture
def index() -> NameIndex[int]:
    made: NameIndex[int] = NameIndex()
    for thing, path in PATHS.items():
        made.add(path, thing)
    return made


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("one/film", {1}),
        ("one/film.png", {1}),
        ("other/one/film.png", set()),
        ("film.dcm", {1, 2}),
        ("film", {1, 2, 6}),
        ("1.2.840.10008", {3}),
        ("1.2.840", set()),
        ("patient1/study1/view1.jpg", {4}),
        ("patient2\\study1\\view1.png", {5}),
        ("study1/view1", {4, 5}),
        ("folder/scan.png", {7}),
        ("", set()),
        ("/", set()),
        ("Film.dcm", set()),
    ],
)
def test_a_name_finds_what_ends_with_it(index: NameIndex[int], name: str, found: set[int]) -> None:
    assert index.find(name) == found


def test_a_name_with_its_extension_counts_before_one_without() -> None:
    index: NameIndex[str] = NameIndex()
    index.add("a.png", "png")
    index.add("a.jpg", "jpg")
    assert index.find("a.png") == {"png"}
    assert index.find("a.tif") == {"png", "jpg"}
