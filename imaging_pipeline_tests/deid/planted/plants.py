"""What is planted and what must stay: the records a corpus is made of, and the hand that writes them down."""

from __future__ import annotations

import enum
import warnings
from dataclasses import dataclass, field
from io import BytesIO

from pydicom import dcmwrite
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from imaging_pipeline_tests.deid.planted.patients import Patient

ROOT = "1.2.826.0.1.3680043.9.7433"
STUDY_DAY = "20210105"


class Kind(enum.StrEnum):
    """What a planted value is."""

    NAME = "NAME"
    NUMBER = "NUMBER"
    CONTACT = "CONTACT"
    DATE = "DATE"
    STAFF = "STAFF"
    INSTITUTION = "INSTITUTION"
    UID = "UID"
    DEVICE = "DEVICE"


DIRECT = frozenset({Kind.NAME, Kind.NUMBER, Kind.CONTACT})
"""Kinds that name the patient without further knowledge."""


@dataclass(frozen=True)
class Plant:
    """One planted value. It is left when any of its needles is found in the output.

    Attributes:
        is_plain: whether the value at ``place``, a path, spells the needles, so that it can be told from its twins.
    """

    kind: Kind
    place: str
    needles: tuple[str, ...]
    is_plain: bool = False


@dataclass(frozen=True)
class Keep:
    """What must still be at a path, such as ``0040A730[0].0040A160``: these words of it, or only the attribute."""

    path: str
    words: tuple[str, ...] = ()
    is_whole: bool = False


@dataclass(frozen=True)
class Day:
    """A date attribute that must move by the patient's shift: its path and the original's first eight digits."""

    path: str
    original: str


@dataclass(frozen=True)
class Mark:
    """Burned-in text: frame, box (top, left, bottom, right) and whether it must be hidden or kept."""

    frame: int
    box: tuple[int, int, int, int]
    is_hidden: bool
    kind: Kind = Kind.NAME


@dataclass
class Planted:
    """One object with its list.

    Attributes:
        name: what it shows, as the id of tests.
        is_clean: whether pixels hold nothing to remove, so that they must come out untouched.
    """

    name: str
    patient: Patient
    data: bytes
    plants: list[Plant]
    keeps: list[Keep]
    days: list[Day]
    uids: list[str]
    marks: list[Mark] = field(default_factory=list)
    is_clean: bool = True


class Planter:
    """Writes values into a data set and notes each of them."""

    def __init__(self, patient: Patient, ds: Dataset) -> None:
        self.patient = patient
        self.ds = ds
        self.plants: list[Plant] = []
        self.keeps: list[Keep] = []
        self.days: list[Day] = []
        self.uids: list[str] = []
        self.marks: list[Mark] = []

    def inside(self, *keywords: str) -> Dataset:
        """The first item of nested sequences, made where it is missing."""
        ds = self.ds
        for keyword in keywords:
            if keyword not in ds:
                setattr(ds, keyword, Sequence([Dataset()]))
            ds = ds[keyword].value[0]
        return ds

    def plant(self, kind: Kind, keyword: str, value: object, *needles: str, within: tuple[str, ...] = ()) -> None:
        """Write ``value`` and note ``needles``; without needles the value itself is one."""
        self._write(keyword, value, within)
        found = needles or (str(value),)
        is_plain = isinstance(value, str) and all(needle in value for needle in found)
        self.plants.append(Plant(kind, path(keyword, within), found, is_plain))

    def keep(self, keyword: str, value: object, *words: str, within: tuple[str, ...] = ()) -> None:
        """Write ``value`` and note the words of it that must stay; without words the value must stay as it is."""
        self._write(keyword, value, within)
        texts = value if isinstance(value, (list, tuple)) else [value]
        self.keeps.append(Keep(path(keyword, within), words or tuple(str(text) for text in texts), is_whole=not words))

    def text(
        self, kind: Kind, keyword: str, value: str, needles: str, words: str, within: tuple[str, ...] = ()
    ) -> None:
        """Write a text of which ``needles`` (``|`` between them) must go and ``words`` must stay."""
        self.plant(kind, keyword, value, *filter(None, needles.split("|")), within=within)
        if words:
            self.keeps.append(Keep(path(keyword, within), tuple(words.split("|"))))

    def day(self, keyword: str, value: str, within: tuple[str, ...] = ()) -> None:
        """Write a date or moment that must be shifted."""
        self._write(keyword, value, within)
        self.days.append(Day(path(keyword, within), value[:8]))
        self.plants.append(Plant(Kind.DATE, path(keyword, within), (value[:8],), is_plain=True))

    def uid(self, keyword: str, value: str, within: tuple[str, ...] = ()) -> None:
        """Write a UID that must be replaced, the same everywhere."""
        self._write(keyword, value, within)
        self.uids.append(path(keyword, within))
        self.plants.append(Plant(Kind.UID, path(keyword, within), (value,), is_plain=True))

    def note(self, kind: Kind, place: str, *needles: str) -> None:
        self.plants.append(Plant(kind, place, needles))

    def done(self, name: str, syntax: str = ExplicitVRLittleEndian, *, is_clean: bool = True) -> Planted:
        """The object as a Part 10 file, with what was noted."""
        return self.file(name, encode(self.ds, syntax), is_clean=is_clean)

    def file(self, name: str, data: bytes, *, is_clean: bool = True) -> Planted:
        return Planted(
            name, self.patient, data, self.plants, self.keeps, self.days, self.uids, self.marks, is_clean=is_clean
        )

    def _write(self, keyword: str, value: object, within: tuple[str, ...]) -> None:
        tag = tag_for_keyword(keyword)
        assert tag is not None, keyword
        vr = dictionary_VR(tag).split(" or ")[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # values may be longer than their VR allows, as they are in archives
            self.inside(*within).add(DataElement(tag, vr, value))


def path(keyword: str, within: tuple[str, ...] = ()) -> str:
    tags = [tag_for_keyword(word) for word in (*within, keyword)]
    return "[0].".join(f"{tag:08X}" for tag in tags if tag is not None)


def encode(
    ds: Dataset, syntax: str = ExplicitVRLittleEndian, preamble: bytes = bytes(128), trailing: bytes = b""
) -> bytes:
    """``ds`` as a Part 10 file."""
    ds.file_meta = getattr(ds, "file_meta", None) or FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    buffer = BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    return preamble + buffer.getvalue()[128:] + trailing
