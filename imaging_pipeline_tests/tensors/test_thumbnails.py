"""Thumbnails: the pictures themselves, and what stands in the lakes as objects come, change and go."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_files

from imaging_pipeline.deid.targets import keys_of_batch
from imaging_pipeline.errors import PoisonInput, Reason
from imaging_pipeline.metadata.silver import VersionPolicy
from imaging_pipeline.objects.folder import uri_to_path
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.tensors import thumbnail_batch
from imaging_pipeline.tensors.thumbnail_batch import (
    ThumbnailCounts,
    load_original_thumbnails,
    load_released_thumbnails,
    thumbnails_to_show,
    withdraw_thumbnails,
)
from imaging_pipeline.tensors.thumbnails import contact_sheet, make_thumbnail
from imaging_pipeline_tests.deid.corpus import ROOT, keys
from imaging_pipeline_tests.deid.test_release import FIRST, SECOND, Zones
from imaging_pipeline_tests.dicom.images import image, lookup_table
from imaging_pipeline_tests.metadata.headers import memory_lake

NO_PIXELS = {"PixelData": b"\0"}
"""A film whose pixels cannot be decoded."""


def opened(picture: bytes) -> Image.Image:
    return Image.open(BytesIO(picture))


def levels(picture: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(opened(picture).convert("L")).astype(int)


# --- one picture -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "aspect", "size"),
    [
        ((1000, 500), [1, 1], (128, 256)),
        ((500, 1000), [1, 1], (256, 128)),
        ((100, 60), [1, 1], (60, 100)),
        ((100, 100), [2, 1], (100, 200)),
        ((300, 300), [1, 2], (256, 128)),
        ((1, 5000), [1, 1], (256, 1)),
    ],
)
def test_the_longest_edge_is_256_pixels_pixels_are_square_and_nothing_is_enlarged(
    shape: tuple[int, int], aspect: list[int], size: tuple[int, int]
) -> None:
    made = make_thumbnail(image(np.zeros(shape, "u1"), PixelAspectRatio=aspect))

    assert opened(made.image).size == size
    assert opened(made.image).format == "WEBP"
    assert (made.rows, made.columns) == shape


def test_the_middle_frame_is_shown() -> None:
    frames = np.stack([np.full((16, 16), value, "u1") for value in (10, 60, 250, 20)])

    made = make_thumbnail(image(frames, WindowCenter=128, WindowWidth=256))

    assert (made.frame_number, made.number_of_frames) == (3, 4)
    assert abs(levels(made.image).mean() - 250) < 4


def test_the_picture_is_what_a_viewer_shows() -> None:
    ramp = np.tile(np.arange(64, dtype="u2") * 60, (64, 1))

    upright, inverted = (
        levels(make_thumbnail(image(ramp, photometric=photometric, bits_stored=12)).image)
        for photometric in ("MONOCHROME2", "MONOCHROME1")
    )

    assert upright[:, 0].mean() < 15
    assert upright[:, -1].mean() > 240
    assert abs(upright + inverted - 255).mean() < 6


def test_colour_stays_colour() -> None:
    stored = np.zeros((32, 32, 3), "u1")
    stored[..., 0] = 200

    red, green, blue = np.asarray(opened(make_thumbnail(image(stored, photometric="RGB")).image)).mean((0, 1))

    assert red > 180
    assert max(green, blue) < 30


def test_a_first_window_that_shows_nothing_is_not_used() -> None:
    ramp = np.tile(np.arange(64, dtype="u2"), (64, 1))

    made = make_thumbnail(image(ramp, WindowCenter=30000, WindowWidth=10))

    assert np.ptp(levels(made.image)) > 200


def test_the_same_bytes_give_the_same_picture() -> None:
    data = image(np.random.default_rng(3).integers(0, 4096, (300, 200)).astype("u2"), bits_stored=12)

    assert make_thumbnail(data) == make_thumbnail(data)
    assert make_thumbnail(data).sha256 == hashlib.sha256(make_thumbnail(data).image).hexdigest()


def test_what_cannot_be_decoded_is_refused_with_its_reason() -> None:
    with pytest.raises(PoisonInput) as caught:
        make_thumbnail(image(np.zeros((4, 4), "u1"), VOILUTSequence=lookup_table(0, [1], 8), Rows=400))

    assert caught.value.reason is Reason.PIXEL_UNDECODABLE


def test_every_real_file_gives_a_small_picture_or_a_refusal() -> None:
    sizes = []
    for name in filter(lambda name: Path(name).is_file(), get_testdata_files()):
        try:
            made = make_thumbnail(Path(name).read_bytes())
        except PoisonInput:
            continue
        assert max(opened(made.image).size) <= 256
        sizes.append(len(made.image))
    assert len(sizes) > 60
    assert sum(sizes) / len(sizes) < 8_000


def test_a_sheet_shows_at_most_24_pictures_each_in_its_cell() -> None:
    grays = [np.full((40, 40), 9 * number, "u1") for number in range(26)]
    pictures = [make_thumbnail(image(gray, WindowCenter=128, WindowWidth=256)).image for gray in grays]

    sheet = opened(contact_sheet(pictures))

    assert sheet.size == (6 * 130, 4 * 130)
    gray = np.asarray(sheet.convert("L")).astype(int)
    assert [abs(gray[(n // 6) * 130 + 64, (n % 6) * 130 + 64] - 9 * n) < 6 for n in range(24)] == [True] * 24
    assert opened(contact_sheet([])).size == (130, 130)
    assert opened(contact_sheet(pictures[:2])).size == (260, 130)


# --- in the lakes ------------------------------------------------------------------------------------------------


class Pictures(Zones):
    """The zones, and thumbnails made from them as the assets do."""

    def show(self, batch_id: str) -> tuple[ThumbnailCounts, ThumbnailCounts]:
        """Thumbnails of a batch that has been released: of originals, then of released files."""
        return (
            load_original_thumbnails(self.identified, batch_id, ObjectReader(), workers=1),
            load_released_thumbnails(self.research, batch_id, workers=1),
        )

    def take_back(self, batch_id: str) -> None:
        about = keys_of_batch(self.identified, self.research, keys(), batch_id)
        withdraw_thumbnails(self.research, about)

    def shown(self, schema: str) -> list[tuple[object, ...]]:
        lake = self.identified if schema == "silver" else self.research
        return lake.rows(f"SELECT * EXCLUDE (_loaded_at) FROM {schema}.thumbnail ORDER BY instance_key")

    def issues(self, schema: str) -> list[tuple[object, ...]]:
        lake = self.identified if schema == "bronze" else self.research
        sql = (
            f"SELECT stage, severity, issue_code, message FROM {schema}.ingest_issue WHERE stage = 'PIXEL' ORDER BY ALL"
        )
        return lake.rows(sql)

    def is_as_the_lakes_say(self) -> bool:
        """Every live image has the thumbnail of its content, and there is no other."""
        originals = "SELECT instance_key, content_sha256 FROM silver.dicom_instance WHERE version_state <> 'DELETED'"
        released = "SELECT instance_key, content_sha256 FROM deid.deid_verification"
        made = "SELECT instance_key, source_content_sha256 FROM {}.thumbnail"
        return all(
            sorted(lake.rows(wanted)) == sorted(lake.rows(made.format(schema)))
            for lake, wanted, schema in ((self.identified, originals, "silver"), (self.research, released, "gold"))
        )


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pictures]:
    in_this_process: Any = lambda function, items, **_: map(function, [items] if items else [])  # noqa: E731
    monkeypatch.setattr(thumbnail_batch, "map_chunks", in_this_process)
    with memory_lake("identified") as identified, memory_lake("research") as research:
        yield Pictures(tmp_path, identified, research)


def several(number: int, **attributes: object) -> dict[str, dict[str, object]]:
    return {f"f{n}": {"SOPInstanceUID": f"{ROOT}.3.{n}"} | attributes for n in range(number)}


def test_originals_and_released_files_have_their_thumbnails_each_in_its_lake(pictures: Pictures) -> None:
    pictures.take_in(FIRST, **several(3))

    originals, released = pictures.show(FIRST)

    assert originals == released == ThumbnailCounts(images=3, made=3)
    assert pictures.is_as_the_lakes_say()
    uids = {row[1] for row in pictures.shown("silver")}
    assert uids == {f"{ROOT}.3.{n}" for n in range(3)}
    assert not uids & {row[1] for row in pictures.shown("gold")}
    assert all(opened(picture).size == (4, 4) for picture in thumbnails_to_show(pictures.research, FIRST, 24))
    assert len(thumbnails_to_show(pictures.research, FIRST, 2)) == 2
    for lake, schema, places in (
        (pictures.identified, "silver", "silver"),
        (pictures.research, "gold", "deid"),
    ):
        for uri, picture, digest in lake.rows(
            f"""SELECT storage_uri, image, image_sha256 FROM {schema}.thumbnail
            JOIN {places}.dicom_file_location USING (instance_key)"""
        ):
            made = make_thumbnail(uri_to_path(str(uri)).read_bytes())
            assert (picture, digest) == (made.image, made.sha256)


def test_a_rerun_leaves_the_same_rows_and_reads_nothing_again(pictures: Pictures) -> None:
    pictures.take_in(FIRST, **several(2))
    pictures.show(FIRST)
    before = pictures.shown("silver"), pictures.shown("gold")
    for path in (pictures.folder / "landing").rglob("*.dcm"):
        path.unlink()

    originals, released = pictures.show(FIRST)

    assert originals == released == ThumbnailCounts(images=2, kept=2)
    assert (pictures.shown("silver"), pictures.shown("gold")) == before


def test_newer_code_makes_them_anew(pictures: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures.take_in(FIRST, **several(2))
    pictures.show(FIRST)
    monkeypatch.setattr(thumbnail_batch, "CODE_VERSION", "next")

    assert pictures.show(FIRST)[0] == ThumbnailCounts(images=2, made=2)
    assert len(pictures.shown("silver")) == 2


def test_an_image_that_cannot_be_shown_has_an_issue_and_the_others_their_pictures(pictures: Pictures) -> None:
    pictures.take_in(FIRST, **several(2), bad={"SOPInstanceUID": f"{ROOT}.9"} | NO_PIXELS)

    originals, released = pictures.show(FIRST)
    pictures.show(FIRST)

    assert originals == ThumbnailCounts(images=3, made=2, failed=1)
    assert released == ThumbnailCounts(images=2, made=2)  # what cannot be decoded is not released
    ((stage, severity, code, message),) = pictures.issues("bronze")
    assert (stage, severity, code) == ("PIXEL", "WARNING", "pixel_undecodable")
    assert str(message).startswith("thumbnail: ")


def test_an_original_that_cannot_be_read_has_an_issue_until_it_is_there_again(pictures: Pictures) -> None:
    pictures.take_in(FIRST, **several(2))
    path = pictures.folder / "landing" / FIRST / "f0.dcm"
    path.rename(path.with_suffix(".away"))
    assert pictures.show(FIRST)[0] == ThumbnailCounts(images=2, made=1, failed=1)
    assert [code for _, _, code, _ in pictures.issues("bronze")] == ["gone"]

    path.with_suffix(".away").rename(path)

    assert pictures.show(FIRST)[0] == ThumbnailCounts(images=2, made=1, kept=1)
    assert pictures.issues("bronze") == []


def test_issues_of_other_steps_stay(pictures: Pictures) -> None:
    pictures.take_in(FIRST, **several(1))
    insert = """INSERT INTO {}.ingest_issue BY NAME SELECT 'k' AS issue_key, object_key, 'PIXEL' AS stage,
        'recipe chest: …' AS message, arrival_batch FROM {}.dicom_file_location"""
    for lake, issues, places in ((pictures.identified, "bronze", "silver"), (pictures.research, "gold", "deid")):
        lake.connection.execute(insert.format(issues, places))

    pictures.show(FIRST)

    assert len(pictures.issues("bronze")) == len(pictures.issues("gold")) == 1


def test_what_has_vanished_takes_its_thumbnails_along(pictures: Pictures) -> None:
    pictures.take_in(FIRST, **several(3))
    pictures.show(FIRST)

    pictures.vanish(FIRST, "f1")
    pictures.take_back(FIRST)
    assert len(pictures.shown("gold")) == 2  # before the batch's thumbnails are made again
    pictures.show(FIRST)

    assert len(pictures.shown("silver")) == 2
    assert pictures.is_as_the_lakes_say()


def test_a_newer_version_in_another_batch_takes_the_place_and_gives_it_back(pictures: Pictures) -> None:
    pictures.take_in(FIRST, seen={})
    pictures.show(FIRST)
    ((*_, old_sha256, _, _),) = [row[:11] for row in pictures.shown("silver")]
    pictures.take_in(SECOND, corrected={"PatientID": "MRN-2222222", "WindowCenter": "9", "WindowWidth": "3"})
    pictures.take_back(SECOND)
    assert pictures.shown("gold") == []
    pictures.show(SECOND)
    assert pictures.is_as_the_lakes_say()
    assert [row[-1] for row in pictures.shown("silver")] == [SECOND]

    pictures.vanish(SECOND)
    pictures.take_back(SECOND)
    pictures.show(SECOND)

    assert pictures.is_as_the_lakes_say()
    assert [row[-1] for row in pictures.shown("silver")] == [FIRST]
    assert [row[8] for row in pictures.shown("silver")] == [old_sha256]


def test_a_version_that_is_held_leaves_no_thumbnail_on_the_research_side(pictures: Pictures) -> None:
    pictures.take_in(FIRST, seen={})
    pictures.show(FIRST)
    pictures.take_in(SECOND, corrected={"BurnedInAnnotation": "YES"})
    pictures.take_back(SECOND)

    pictures.show(SECOND)

    assert pictures.shown("gold") == []
    assert len(pictures.shown("silver")) == 1


def test_two_contents_that_wait_for_a_person_are_both_shown_to_that_person(pictures: Pictures) -> None:
    pictures.take_in(FIRST, one={}, policy=VersionPolicy.KEEP_BOTH)
    pictures.show(FIRST)
    pictures.take_in(SECOND, two={"PatientID": "MRN-2222222"}, policy=VersionPolicy.KEEP_BOTH)
    pictures.take_back(SECOND)

    pictures.show(SECOND)

    assert len(pictures.shown("silver")) == 2
    assert pictures.is_as_the_lakes_say()
