"""The corpus: every planted object, in groups that tests, benchmark and score take."""

from __future__ import annotations

from functools import lru_cache

from imaging_pipeline_tests.deid.planted import headers, pixels, places, reports, texts
from imaging_pipeline_tests.deid.planted.patients import (
    CLINICAL,
    CYRILLIC,
    PATIENTS,
    SHORT,
    UMLAUT,
    ZWYNT,
)
from imaging_pipeline_tests.deid.planted.plants import Planted

EXPLICIT = "1.2.840.10008.1.2.1"


@lru_cache(maxsize=1)
def header_objects() -> tuple[Planted, ...]:
    """Plants in attributes, private blocks and odd places of files."""
    return (
        *(headers.radiograph(patient) for patient in PATIENTS),
        *(headers.every_attribute(ZWYNT, *one) for one in zip(headers.SYNTAXES, (0, 3, 0), strict=True)),
        headers.every_attribute(UMLAUT, EXPLICIT, 3),
        headers.numbers(ZWYNT),
        *(headers.private(patient, syntax) for patient, syntax in ((ZWYNT, headers.SYNTAXES[0]), (UMLAUT, EXPLICIT))),
        headers.odd_places(ZWYNT, trailing=False, padding=False),
        headers.odd_places(ZWYNT, trailing=False, padding=True),
        headers.odd_places(ZWYNT, trailing=True, padding=False),
        headers.references(ZWYNT),
    )  # fmt: skip


@lru_cache(maxsize=1)
def text_objects() -> tuple[Planted, ...]:
    """Plants in free text."""
    variants = (one for patient in (ZWYNT, UMLAUT, CLINICAL, CYRILLIC) for one in texts.name_variants(patient))
    return (
        *texts.free_text(ZWYNT, texts.STAFF_AND_PLACES, "staff"),
        *texts.free_text(ZWYNT, texts.NUMBERS_AND_CONTACTS, "contacts"),
        texts.dates_in_text(ZWYNT), *variants, texts.encoded(ZWYNT), texts.encoded_binary(ZWYNT),
        *texts.character_sets(),
    )  # fmt: skip


@lru_cache(maxsize=1)
def clean_text_objects() -> tuple[Planted, ...]:
    """Descriptions that name nobody, of patients with ordinary and with clinical names."""
    return tuple(texts.clean_texts(ZWYNT))


@lru_cache(maxsize=1)
def report_objects() -> tuple[Planted, ...]:
    """Plants in objects that are no plain images."""
    return tuple(reports.reports(ZWYNT))


@lru_cache(maxsize=1)
def place_objects() -> tuple[Planted, ...]:
    """Plants in places that tools forget."""
    return tuple(places.places(ZWYNT))


@lru_cache(maxsize=1)
def film_objects() -> tuple[Planted, ...]:
    """Radiographs with and without burned-in text."""
    return tuple(pixels.films(ZWYNT))


@lru_cache(maxsize=1)
def pixel_objects() -> tuple[Planted, ...]:
    """Burned-in text in colour, in frames, compressed, in unused bits; text inside compressed streams."""
    return (
        pixels.ultrasound(ZWYNT), pixels.ultrasound(UMLAUT, 2), pixels.screen_capture(ZWYNT),
        pixels.one_frame_of_many(CLINICAL), pixels.palette(ZWYNT), pixels.planar(SHORT),
        *(pixels.compressed(ZWYNT, syntax, has_name=one) for syntax in pixels.COMPRESSIONS for one in (True, False)),
        pixels.windowed(ZWYNT), pixels.signed(ZWYNT), *pixels.inside_streams(ZWYNT), *pixels.hidden_bits(ZWYNT),
    )  # fmt: skip


def everything() -> tuple[Planted, ...]:
    """The whole corpus."""
    return (
        *header_objects(), *text_objects(), *clean_text_objects(), *report_objects(), *place_objects(),
        *film_objects(), *pixel_objects(),
    )  # fmt: skip
