"""Invented patients, staff and institutions whose values are listed, so that each can be looked for."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Patient:
    """An invented patient: every value is one an object of this patient may carry."""

    family: str
    given: str
    middle: str
    patient_id: str
    birth_date: str
    accession: str
    street: str
    city: str
    phone: str
    charset: str | None = None

    @property
    def name(self) -> str:
        return "^".join((self.family, self.given, self.middle)).rstrip("^")


ZWYNT = Patient(
    "Zwyntharquist", "Oberon", "Tiberius", "MRN-7731945", "19610412", "ACC9928173", "14 Quillhaven Road",
    "Drumnadrochit", "+44 1632 960813",
)  # fmt: skip
UMLAUT = Patient(
    "Müller-Lüdenscheid", "Jürgen", "", "KH 00481516", "19480229", "AUF-2021-31337", "Hauptstraße 7", "Pfaffenhofen",
    "089/5558 1234", "ISO_IR 100",
)  # fmt: skip
CLINICAL = Patient(
    "Brown", "Art", "May", "20871133", "19330707", "55410982", "3 Long Lane", "Chester", "617-555-0142",
)  # fmt: skip
SHORT = Patient("Ng", "Bo", "", "A71", "20010911", "X9", "1 Oak St", "Ely", "5550143")
APOSTROPHE = Patient(
    "O'Shaughnessy", "Máire Bríd", "", "IE/4455/66", "19991231", "W0012233", "Bóthar na Trá 9", "Gaillimh",
    "+353 91 555 014", "ISO_IR 192",
)  # fmt: skip
JAPANESE = Patient(
    "Yamada", "Tarou", "", "TK4410293", "19720503", "JP20210105", "1-2-3 Marunouchi", "Chiyoda", "03-5555-0199",
)  # fmt: skip
CYRILLIC = Patient(
    "Жвинтарквист", "Оберон", "", "РФ-771945", "19550808", "КД-20817", "ул. Ленина 5", "Новосибирск",
    "+7 383 555-01-47", "ISO_IR 192",
)  # fmt: skip

PATIENTS = (ZWYNT, UMLAUT, CLINICAL, SHORT, APOSTROPHE, JAPANESE, CYRILLIC)

STAFF = ("Krautschnabel", "Vanderbloom", "Okonkwo-Reyes", "Delacroix-Petit", "Szczepański", "Featherstonehaugh")
INSTITUTION = "St. Ottilien Krankenhaus"
STATION = "OTTILIENCT3"
SERIAL = "SN88123X4"

_SYLLABLES = ("bra", "dor", "vel", "kin", "zol", "mar", "tep", "qui", "lun", "fas", "gro", "nys", "hul", "pim", "wex")


def anyone(number: int) -> Patient:
    """The patient of that number, another one for each."""
    rng = random.Random(number)

    def word(length: int) -> str:
        return "".join(rng.choice(_SYLLABLES) for _ in range(length)).capitalize()

    return Patient(
        family=word(4), given=word(3), middle=word(3), patient_id=f"MR{rng.randrange(10**7, 10**8)}",
        birth_date=f"{rng.randrange(1940, 2000)}{rng.randrange(1, 13):02}{rng.randrange(1, 29):02}",
        accession=f"AC{rng.randrange(10**7, 10**8)}", street=f"{rng.randrange(1, 99)} {word(3)} Street", city=word(3),
        phone=f"+44 1632 {rng.randrange(10**5, 10**6)}",
    )  # fmt: skip
