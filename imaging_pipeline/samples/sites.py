"""The invented hospitals of the sample data: their machines, character sets and people.

Owns names and equipment as data, and the drawing of a patient from a seed. Knows no pixels and writes no DICOM.
"""

from __future__ import annotations

import datetime as dt
import enum
import hashlib
from dataclasses import dataclass

import numpy as np
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from imaging_pipeline.samples.body import happens

OLDEST, YOUNGEST = dt.date(1929, 1, 1), dt.date(2000, 12, 31)
"""Birth dates lie between these, so that every patient is an adult below 96 at every study."""


class Display(enum.StrEnum):
    """How stored values become display values (PS3.3 C.11.1, C.11.2)."""

    WINDOW = "window"
    TWO_WINDOWS = "two windows"
    VOI_LUT = "VOI LUT"
    RESCALE = "rescale and window"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Machine:
    """One X-ray unit or plate reader and the way it writes its images."""

    modality: str
    manufacturer: str
    model: str
    station: str
    bits_stored: int
    transfer_syntax: UID
    display: Display
    portrait: bool = False
    inverted: bool = False


@dataclass(frozen=True, slots=True)
class Site:
    """One hospital.

    Attributes:
        charset: Specific Character Set (0008,0005) of its objects; empty means ASCII and the attribute is left out.
        prefix: of its patient IDs.
        families: family names.
        women: women's given names.
        men: men's given names.
    """

    institution: str
    address: str
    charset: tuple[str, ...]
    prefix: str
    study_description: str
    machines: tuple[Machine, ...]
    families: tuple[str, ...]
    women: tuple[str, ...]
    men: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Patient:
    """One invented person and the hospital they go to."""

    site: Site
    name: str
    patient_id: str
    national_id: str
    birth_date: dt.date
    female: bool
    size_m: float
    weight_kg: float
    physicians: tuple[str, str, str]


SITES = (
    Site(
        "Lakeside Medical Center", "12 Harbor Road, Lakeside", (), "LMC", "CHEST 2 VIEWS",
        (
            Machine("DX", "GE MEDICAL SYSTEMS", "Definium 8000", "LMCDX1", 14, ExplicitVRLittleEndian,
                    Display.TWO_WINDOWS),
            Machine("CR", "FUJIFILM Corporation", "FCR 5000plus", "LMCCR1", 10, ImplicitVRLittleEndian,
                    Display.WINDOW, portrait=True, inverted=True),
        ),
        ("Abbott", "Brooks", "Carver", "Delaney", "Ellery", "Finch", "Granger", "Holloway", "Ingram", "Judson"),
        ("Alice", "Brenda", "Clara", "Donna", "Esther", "Fiona"),
        ("Aaron", "Bruce", "Colin", "Derek", "Elliot", "Frank"),
    ),
    Site(
        "Universitätsklinikum Nordwald", "Königsallee 7, Nordwald", ("ISO_IR 100",), "NW", "Thorax p.a.",
        (
            Machine("DX", "SIEMENS", "Ysio", "NWROE2", 12, ExplicitVRLittleEndian, Display.WINDOW, inverted=True),
            Machine("CR", "Agfa", "CR85", "NWCR3", 12, ExplicitVRLittleEndian, Display.RESCALE),
        ),
        ("Müller", "Schäfer", "Köhler", "Weiß", "Jäger", "Größling", "Lüders", "Böhm", "Hübner", "Kästner"),
        ("Käthe", "Jördis", "Änne", "Gisela", "Bärbel", "Ulrike"),
        ("Jürgen", "Günther", "Björn", "Götz", "Rüdiger", "Sönke"),
    ),
    Site(
        "Hôpital Saint-Rémy", "3 allée des Érables, Saint-Rémy", ("ISO_IR 192",), "HSR", "THORAX FACE DEBOUT",
        (
            Machine("DX", "Philips Medical Systems", "DigitalDiagnost", "HSRDX1", 12, JPEGLSLossless,
                    Display.VOI_LUT),
            Machine("CR", "Carestream Health", "DirectView CR975", "HSRCR1", 12, RLELossless, Display.VOI_LUT,
                    inverted=True),
        ),
        ("Lefèvre", "Bérard", "Châtelet", "Gérôme", "Noël", "Façade", "L'Hôte", "Crépin", "Maçon", "Sénéchal"),
        ("Zoé", "Hélène", "Cécile", "Anaïs", "Thérèse", "Françoise"),
        ("Jérôme", "Loïc", "François", "Gaël", "Rémi", "Théo"),
    ),
    Site(
        "Szpital Źródlana", "ul. Łąkowa 4, Źródła", ("ISO_IR 192",), "SZ", "RTG klatki piersiowej",
        (
            Machine("DX", "Canon Inc.", "CXDI Control Software NE", "SZDX1", 16, JPEG2000Lossless,
                    Display.WINDOW, portrait=True),
        ),
        ("Wałęga", "Żuk", "Śliwa", "Gołąb", "Łuczak", "Ćwik", "Źrebiec", "Dąbek", "Gwóźdź", "Pająk"),
        ("Łucja", "Bożena", "Małgorzata", "Elżbieta", "Róża", "Żaneta"),
        ("Paweł", "Łukasz", "Michał", "Józef", "Rafał", "Błażej"),
    ),
    Site(
        "Sakura General Hospital", "2-4-1 Midori, Sakura", ("", "ISO 2022 IR 87"), "SGH", "CHEST PA",
        (
            Machine("DX", "SHIMADZU", "RADspeed Pro", "SGHDX1", 14, ExplicitVRLittleEndian, Display.VOI_LUT,
                    inverted=True),
            Machine("CR", "KONICA MINOLTA", "REGIUS 190", "SGHCR1", 12, ImplicitVRLittleEndian, Display.NONE),
        ),
        ("Yamada=山田=やまだ", "Suzuki=鈴木=すずき", "Tanaka=田中=たなか", "Kimura=木村=きむら", "Hayashi=林=はやし",
         "Mori=森=もり", "Ito=伊藤=いとう", "Ogawa=小川=おがわ"),
        ("Hanako=花子=はなこ", "Yuki=雪=ゆき", "Aiko=愛子=あいこ", "Sakura=桜=さくら"),
        ("Tarou=太郎=たろう", "Kenji=健二=けんじ", "Makoto=誠=まこと", "Ichirou=一郎=いちろう"),
    ),
    Site(
        "Больница на Озере", "Лесная улица 9", ("ISO_IR 144",), "BO", "Рентген ОГК",
        (
            Machine("DX", "SAMSUNG ELECTRONICS", "GC85A", "BODX1", 16, RLELossless, Display.TWO_WINDOWS, inverted=True),
        ),
        ("Иваненко", "Петренко", "Черных", "Седых", "Шевченко", "Короленко", "Белых", "Щербань"),
        ("Анна", "Ольга", "Мария", "Юлия"),
        ("Пётр", "Илья", "Юрий", "Фёдор"),
    ),
)  # fmt: skip
"""Every stored depth from 10 to 16 bits, both photometric interpretations, each display and five transfer syntaxes."""


def draw_patient(seed: int, number: int) -> Patient:
    """Draw patient ``number`` of a seed; IDs of different numbers differ."""
    rng = generator(seed, "patient", number)
    site = SITES[int(rng.integers(len(SITES)))]
    female = happens(rng, 0.5)
    code = digest(seed, "patient", number)
    return Patient(
        site=site,
        name=_name(rng, site, site.women if female else site.men),
        patient_id=f"{site.prefix}-{int(code[:12], 16) % 10**8:08d}",
        national_id=f"{int(code[12:28], 16) % 10**10:010d}",
        birth_date=OLDEST + dt.timedelta(days=int(rng.integers((YOUNGEST - OLDEST).days))),
        female=female,
        size_m=round(float(rng.normal(1.64 if female else 1.77, 0.07)), 2),
        weight_kg=round(float(np.clip(rng.normal(68 if female else 82, 12), 42, 140)), 1),
        physicians=(
            _name(rng, site, site.women),
            _name(rng, site, site.men),
            _name(rng, site, site.women),
        ),
    )


def digest(*parts: object) -> str:
    """Hexadecimal SHA-256 of the parts; equal parts give equal digits on every machine."""
    return hashlib.sha256("/".join(str(part) for part in parts).encode()).hexdigest()


def generator(*parts: object) -> np.random.Generator:
    """Make a random generator keyed by the parts."""
    return np.random.default_rng(int(digest(*parts)[:32], 16))


def _name(rng: np.random.Generator, site: Site, given_names: tuple[str, ...]) -> str:
    """Draw a Person Name (PS3.5 6.2.1): family^given in each of the site's alphabets."""
    family = site.families[int(rng.integers(len(site.families)))].split("=")
    given = given_names[int(rng.integers(len(given_names)))].split("=")
    return "=".join(f"{first}^{second}" for first, second in zip(family, given, strict=True))
