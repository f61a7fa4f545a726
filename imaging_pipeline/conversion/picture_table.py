"""What tables of public collections say about their pictures: patient, study, sex, age, view, size of a pixel.

Known are the tables of ChestX-ray14 (Wang et al., CVPR 2017), CheXpert (Irvin et al., AAAI 2019) and any table with
plain column names. They are told apart by their columns. Labels are read elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from imaging_pipeline.conversion.csv_table import CsvTable, Row

_ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "image": ("image", "file", "filename", "file_name", "path", "image_path", "image_id", "image index"),
        "patient_id": ("patient_id", "patientid", "patient", "patient id", "subject_id"),
        "study": ("study", "study_id", "followup", "follow_up", "follow-up #", "visit"),
        "sex": ("sex", "gender", "patient_sex", "patient gender", "patient sex"),
        "age": ("age", "patient_age", "patient age"),
        "view": ("view", "view_position", "view position", "projection"),
        "modality": ("modality",),
        "body_part": ("body_part", "body_part_examined"),
        "spacing": ("pixel_spacing", "pixel_spacing_mm"),
        "collection": ("source", "collection", "dataset"),
        "licence": ("licence", "license"),
    }
)
"""Plain names of columns, by what is in them; the first that a table has is taken."""

_NIH = ("image index", "finding labels", "patient id")
_CHEXPERT = ("path", "frontal/lateral", "ap/pa")
_CHEXPERT_PATH = re.compile(r"(?P<image>(?P<patient>patient\d+)/(?P<study>study\d+)/[^/]+)$")

_AGE = re.compile(r"(\d{1,3})(?:\.\d*)?\s*([DWMY]?)(?:ears?|onths?|eeks?|ays?)?", re.IGNORECASE)
_SEXES: Mapping[str, str] = MappingProxyType({"m": "M", "male": "M", "f": "F", "female": "F", "o": "O", "other": "O"})
_UNKNOWN = frozenset({"", "unknown", "u", "nan", "na", "n/a", "none"})
_VIEWS: Mapping[str, str] = MappingProxyType(
    {"pa": "PA", "ap": "AP", "ll": "LL", "rl": "RL", "lateral left": "LL", "left lateral": "LL", "right lateral": "RL"}
)
_LONGEST = 64


@dataclass(frozen=True, slots=True)
class Facts:
    """What a table says about one picture; empty where it says nothing.

    Attributes:
        image: its name or path.
        patient_id: of the patient, within the collection.
        study: what tells the patient's studies apart; empty: the picture is a study of its own.
        sex: M, F or O.
        age: as DICOM's Age String (PS3.5 6.2): three digits and D, W, M or Y.
        view: View Position (PS3.3 C.8.11.5): PA, AP, LL or RL.
        modality: Modality (PS3.3 C.7.3.1.1.1).
        body_part: Body Part Examined (PS3.16 Annex L).
        spacing: size of a pixel in mm: between rows, between columns.
        spacing_of: width of the picture (pixels) that ``spacing`` is about; None: of the picture as it is.
        collection: who gave the Patient ID its meaning.
        licence: terms of use.
        doubts: what a table says that cannot be understood; in words, without values.
    """

    image: str
    patient_id: str = ""
    study: str = ""
    sex: str = ""
    age: str = ""
    view: str = ""
    modality: str = ""
    body_part: str = ""
    spacing: tuple[float, float] | None = None
    spacing_of: int | None = None
    collection: str = ""
    licence: str = ""
    doubts: tuple[str, ...] = ()


def read_facts(table: CsvTable) -> list[Facts] | None:
    """What a table says, one entry for each row that can be used; None when it names no pictures.

    Rows that cannot be used become issues of the table. Several rows of one picture are all given.
    """
    reader = _reader(table)
    if reader is None:
        return None
    found = []
    for row in table.rows():
        facts = reader(row)
        if not facts.image or not all(map(_is_long_string, (facts.patient_id, facts.study, facts.collection))):
            table.refuse(
                row.line, "expected the name of a picture; patient, study and source of 64 plain characters at most"
            )
        else:
            found.append(facts)
    return found


def _reader(table: CsvTable) -> Callable[[Row], Facts] | None:
    if table.has(*_CHEXPERT):
        return _chexpert
    named = {name: next((alias for alias in aliases if table.has(alias)), "") for name, aliases in _ALIASES.items()}
    if not named["image"]:
        return None
    if table.has(*_NIH):
        return lambda row: _nih(row, named)
    return lambda row: _plain(row, named)


def _plain(row: Row, named: Mapping[str, str]) -> Facts:
    said = {name: row.cells.get(column, "") for name, column in named.items()}
    doubts: list[str] = []
    return Facts(
        image=said["image"],
        patient_id=said["patient_id"],
        study=said["study"],
        sex=_understood(said["sex"], _SEXES.get, "sex", doubts),
        age=_understood(said["age"], age_string, "age", doubts),
        view=_understood(said["view"], _VIEWS.get, "view", doubts),
        modality=_understood(said["modality"], _code_string, "modality", doubts),
        body_part=_understood(said["body_part"], _code_string, "body part", doubts),
        spacing=_spacing(said["spacing"].strip("[]").replace("\\", " ").replace(",", " ").split(), doubts),
        collection=said["collection"],
        licence=said["licence"],
        doubts=tuple(doubts),
    )


def _nih(row: Row, named: Mapping[str, str]) -> Facts:
    facts = _plain(row, named)
    width = row.cells.get("originalimage[width", "")
    doubts = list(facts.doubts)
    spacing = [row.cells.get(name, "") for name in ("y]", "originalimagepixelspacing[x")]
    return replace(
        facts,
        modality="DX",
        body_part="CHEST",
        spacing=_spacing([text for text in spacing if text], doubts),
        spacing_of=int(width) if width.isdecimal() else None,
        collection="ChestX-ray14",
        doubts=tuple(doubts),
    )


def _chexpert(row: Row) -> Facts:
    found = _CHEXPERT_PATH.search(row.cells["path"])
    doubts: list[str] = []
    return Facts(
        image=found["image"] if found else "",
        patient_id=found["patient"] if found else "",
        study=found["study"] if found else "",
        sex=_understood(row.cells.get("sex", ""), _SEXES.get, "sex", doubts),
        age=_understood(row.cells.get("age", ""), age_string, "age", doubts),
        view=_understood(row.cells["ap/pa"], _VIEWS.get, "view", doubts),
        modality="DX",
        body_part="CHEST",
        collection="CheXpert",
        doubts=tuple(doubts),
    )


def age_string(text: str) -> str | None:
    """An age as DICOM's Age String; a number alone is in years.

    >>> age_string("58"), age_string("058y"), age_string("3 months"), age_string("1-5 (cohort)")
    ('058Y', '058Y', '003M', None)
    """
    found = _AGE.fullmatch(text.strip())
    return f"{int(found[1]):03d}{(found[2] or 'Y').upper()}" if found else None


def _understood(text: str, meaning: Callable[[str], str | None], what: str, doubts: list[str]) -> str:
    if text.casefold() in _UNKNOWN:
        return ""
    found = meaning(text.casefold())
    if found is None:
        doubts.append(f"the {what} cannot be understood")
    return found or ""


def _is_long_string(text: str) -> bool:
    """Whether a text is a legal LO (PS3.5 6.2)."""
    return len(text) <= _LONGEST and text.isprintable() and "\\" not in text


def _code_string(text: str) -> str | None:
    """A legal CS (PS3.5 6.2), or None."""
    word = text.upper()
    return word if re.fullmatch(r"[A-Z0-9 _]{1,16}", word) else None


def _spacing(parts: list[str], doubts: list[str]) -> tuple[float, float] | None:
    if not parts:
        return None
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) not in {1, 2} or not all(0 < number < 100 for number in numbers):
        doubts.append("the size of a pixel cannot be understood")
        return None
    return numbers[0], numbers[-1]
