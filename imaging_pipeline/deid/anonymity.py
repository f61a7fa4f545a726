"""k-anonymity of what is released: how many patients share each combination of quasi-identifiers (Sweeney 2002).

Owns which attributes count and the counting. Contains no values in its results: a rare value is told by its attribute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

QUASI_IDENTIFIERS: Final = {
    "00100030": "PatientBirthDate",
    "00100040": "PatientSex",
    "00101010": "PatientAge",
    "00101020": "PatientSize",
    "00101030": "PatientWeight",
    "00102150": "CountryOfResidence",
    "00102152": "RegionOfResidence",
    "00102160": "EthnicGroup",
    "00102180": "Occupation",
    "001021A0": "SmokingStatus",
    "001021C0": "PregnancyStatus",
    "00102201": "PatientSpeciesDescription",
    "00080080": "InstitutionName",
    "00080081": "InstitutionAddress",
}
"""Attributes of the person, and of where they live or were treated, by tag."""

FEW: Final = 5
"""Classes with fewer patients are shown by themselves; with 5 or more the risk of one is below 0.2."""

Row = Mapping[str, object]


def anonymity_tables(released: Iterable[tuple[str, Mapping[str, str]]]) -> tuple[list[Row], list[Row]]:
    """How large the classes of like patients are, and which attributes make patients stand alone.

    Args:
        released: pseudonym and quasi-identifiers (keyword to value) of each released object.

    Returns:
        Rows of class size k, classes and patients, smallest first; and for each attribute that has any value the number
        of different values and of patients whom it alone tells from all others.
    """
    values: dict[str, dict[str, set[str]]] = {}
    for patient, quasi in released:
        own = values.setdefault(patient, {})
        for keyword, value in quasi.items():
            own.setdefault(keyword, set()).add(value)
    combined = {patient: {name: tuple(sorted(each)) for name, each in own.items()} for patient, own in values.items()}
    sizes = Counter(Counter(tuple(sorted(own.items())) for own in combined.values()).values())
    classes = [{"k": size, "classes": number, "patients": size * number} for size, number in sorted(sizes.items())]
    keywords = sorted({name for own in combined.values() for name in own})
    return list[Row](classes), [_uniqueness(keyword, combined.values()) for keyword in keywords]


def _uniqueness(keyword: str, patients: Iterable[Mapping[str, tuple[str, ...]]]) -> Row:
    found = Counter(own.get(keyword, ()) for own in patients)
    return {
        "attribute": keyword,
        "values": sum(1 for value in found if value),
        "patients_alone": sum(1 for value, number in found.items() if value and number == 1),
    }
