"""Dates, numbers and names in forms that people and devices write; all made up."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from imaging_pipeline.deid import screen
from imaging_pipeline.deid.text import TextCleaner

SHIFT = timedelta(days=-777)


@pytest.fixture(scope="module")
def cleaner() -> TextCleaner:
    own = {screen.Identifier(screen.Kind.NUMBER, "8830217745"), screen.Identifier(screen.Kind.PERSON, "Vandenbroucke")}
    return TextCleaner(screen.Index(frozenset(own)), shift=SHIFT, earliest=date(1980, 1, 2))


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("knee 22 02 2016", "22 02 2016"),
        ("knee 22 II 16", "22 II 16"),
        ("Mar '16 knee", "Mar '16"),
        ("20-22/02/2016", "20-22/02/2016"),
        ("from 20 to 22 Feb 2016", "20 to"),
        ("02-2016", "02-2016"),
        ("exam:22/02/2016", "22/02/2016"),
        ("KNEE-22.02.2016", "22.02.2016"),
        ("LMP 2/14", "2/14"),
        ("May/16 knee", "16"),
        ("week 8 2016", "week 8 2016"),
        ("22 lutego 2016", "2016"),
        ("22 февраля 2016", "2016"),
        ("feb/16", "16"),
        ("b. 1956", "1956"),
        ("*1956", "1956"),
        ("seen 22.02.", "22.02."),
    ],
)
def test_no_date_stays_where_it_was(cleaner: TextCleaner, text: str, gone: str) -> None:
    assert gone not in cleaner.clean(text).text


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("K7M2Q9 chest", "K7M2Q9"),
        ("4471-8820 knee", "4471"),
        ("abdomen 70-4418-93X", "4418"),
        ("AB-1234-CD", "1234"),
        ("12 34 56 78", "12 34"),
        ("S19-4471 biopsy", "4471"),
        ("no. 4417", "4417"),
        ("pt 4417", "4417"),
        ("mrn:44 17", "17"),
        ("241056-1234 knee", "1234"),
        ("19-S-4471", "4471"),
        ("SN4417", "4417"),
        ("lot 4471", "4471"),
        ("abdomen 8 8 3 0 2 1 7 7 4 5", "8 8 3"),
        ("eight eight three zero two one seven seven four five", "eight eight"),
        ("ninety-four years old", "ninety-four"),
        ("jaw /u0056/u0061/u006e/u0064/u0065/u006e", "u0056"),
        ("y4m4d4", "y4m4d4"),
    ],
)
def test_no_number_of_a_record_stays(cleaner: TextCleaner, text: str, gone: str) -> None:
    assert gone not in cleaner.clean(text).text


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("Mrs Gold", "Gold"),
        ("radiologist: Gold", "Gold"),
        ("Gold MD", "Gold"),
        ("John Gold", "Gold"),
        ("J Brown chest", "Brown"),
        ("d/w Brown", "Brown"),
        ("copy to Brown", "Brown"),
        ("Brown's knee", "Brown"),
        ("Head, John", "Head"),
        ("Baker Street", "Baker"),
        ("Elm Rd", "Elm"),
    ],
)
def test_a_surname_that_is_a_word_goes_where_a_name_stands(cleaner: TextCleaner, text: str, gone: str) -> None:
    assert gone not in cleaner.clean(text).text


@pytest.mark.parametrize(
    "text",
    [
        "ADC (10^-6 mm²/s)", "50 µl", "0.1 mmol/kg", "Tc-99m MDP 740 MBq", "5 cm²", "L4/L5", "120/80 mmHg",
        "TE 15 30 45 60", "TR/TE 4000/88", "2000-3000", "T12L1S1", "SUV 3.12.", "5 to 10 mm", "Crohn's",
        "Baker's cyst", "C Arm", "Head, Neck", "grade 2/6 murmur", "512x512x128", "TR 500 TE 20",
        "T1 3D MPRAGE 1mm iso", "2 x 3 x 4 mm", "b0 500 1000 s/mm²", "18F-FDG",
    ],
)  # fmt: skip
def test_measurements_stay_with_their_units(cleaner: TextCleaner, text: str) -> None:
    assert cleaner.clean(text).text == text
