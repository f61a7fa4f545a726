"""Text burned into pixels: found, blanked, proved gone, and nothing else touched."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence
from pydicom.uid import (
    JPEG2000,
    MPEG2MPML,
    UID,
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from imaging_pipeline.deid.pixels import Box, Decision, Decisions, PixelPolicy, Verdict
from imaging_pipeline.deid.pixels.masks import Device, device_of
from imaging_pipeline.deid.screen import Identifier, Index, Kind
from imaging_pipeline.errors import ConfigurationError, PoisonInput, Reason
from imaging_pipeline_tests.deid.pixel_objects import (
    CAPTURE,
    CT,
    FILES,
    HOLDING,
    NAME,
    ULTRASOUND,
    Profile,
    anatomy,
    array,
    clean,
    compressed,
    described,
    image,
    ink,
    mask_of,
    native,
)  # fmt: skip


@pytest.mark.parametrize(
    ("syntax", "bits", "is_signed", "photometric"),
    [
        (RLELossless, 8, False, "MONOCHROME2"),
        (RLELossless, 16, True, "MONOCHROME1"),
        (JPEGLSLossless, 12, False, "MONOCHROME2"),
        (JPEGLSNearLossless, 16, False, "MONOCHROME2"),
        (JPEG2000Lossless, 12, True, "MONOCHROME2"),
        (JPEG2000, 16, False, "MONOCHROME2"),
        (JPEG2000Lossless, 8, False, "YBR_RCT"),
        (RLELossless, 8, False, "RGB"),
    ],
)
def test_text_is_blanked_and_every_other_pixel_stays_in_each_lossless_syntax(
    syntax: UID, bits: int, is_signed: bool, photometric: str
) -> None:
    written = ink(NAME, 128, 256)
    frame = image(np.maximum(anatomy(), written), bits, is_signed=is_signed)
    if photometric in ("RGB", "YBR_RCT"):
        frame = np.stack([frame] * 3, axis=-1)
    ds = compressed(frame[None], syntax, bits, photometric)
    before = array(ds)
    report = clean(ds)
    after, mask = array(ds), mask_of(report, 128, 256)
    assert report.is_changed
    assert report.rules == ("text",)
    assert mask[written > 0.3].all()
    assert np.array_equal(after[~mask], before[~mask])
    assert len(np.unique(after[mask].reshape(-1, after.shape[2] if after.ndim == 3 else 1), axis=0)) == 1
    assert (ds.BitsStored, ds.PhotometricInterpretation) == (bits, photometric)


def test_in_lossy_jpeg_only_the_blocks_under_the_text_change() -> None:
    written = ink(NAME, 128, 256)
    ds = compressed(image(np.maximum(anatomy(), written))[None], JPEGBaseline8Bit)
    before = array(ds).astype(int)
    report = clean(ds)
    after, mask = array(ds).astype(int), mask_of(report, 128, 256)
    touched = np.repeat(np.repeat(mask.reshape(16, 8, 32, 8).any(axis=(1, 3)), 8, axis=0), 8, axis=1)
    assert mask[written > 0.3].all()
    assert np.array_equal(after[~touched], before[~touched])
    assert (after[touched] == 0).all()


def test_planar_big_endian_and_subsampled_colour_are_blanked_in_place() -> None:
    written = ink(NAME, 128, 256)
    frame = np.stack([image(np.maximum(anatomy(), written))] * 3, axis=-1)
    planar = native(frame[None], photometric="RGB")
    planar.PlanarConfiguration = 1
    planar.PixelData = frame.transpose(2, 0, 1).tobytes()
    swapped = native(frame[None, ..., 0])
    swapped.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    swapped.PixelData = np.frombuffer(frame[..., 0].tobytes(), "<u2").astype(">u2").tobytes()
    subsampled = native(frame[None], photometric="YBR_FULL_422")
    luma = frame[..., 0].reshape(128, 128, 2)
    packed = np.concatenate([luma, np.full((128, 128, 2), 128, np.uint8)], axis=2)
    subsampled.PixelData = packed.tobytes()
    for ds in (planar, swapped, subsampled):
        length = len(ds.PixelData)
        report = clean(ds)
        assert mask_of(report, 128, 256)[written > 0.3].all()
        assert len(ds.PixelData) == length
    assert (np.frombuffer(planar.PixelData, np.uint8).reshape(3, 128, 256)[:, written > 0.3] == 0).all()
    values = np.frombuffer(swapped.PixelData, ">u2").astype("<u2").tobytes()
    assert (np.frombuffer(values, np.uint8).reshape(128, 256)[written > 0.3] <= 1).all()
    assert (
        np.frombuffer(subsampled.PixelData, np.uint8).reshape(128, 128, 4)[..., :2].reshape(128, 256)[written > 0.3]
        == 0
    ).all()


@pytest.mark.parametrize(
    ("size", "turns", "value"), [(8, 0, 1.0), (12, 1, 1.0), (24, 3, 0.0), (40, 0, 0.75), (10, 2, 0.75)]
)
def test_banners_of_many_sizes_directions_and_contrasts_are_covered(size: int, turns: int, value: float) -> None:
    written = ink("MRN-77", 160, 200 if turns % 2 == 0 else 160, at=(8, 40), size=size, turns=turns)
    ground = 0.2 + anatomy(*written.shape)
    ds = native(image(ground * (1 - written) + value * written, 12), 12)
    assert mask_of(clean(ds), *written.shape)[written > 0.5].all()


def test_frames_without_text_keep_their_bytes() -> None:
    plain, marked = image(anatomy()), image(np.maximum(anatomy(), ink(NAME, 128, 256)))
    other = image(0.9 * anatomy())
    ds = compressed(np.stack([plain, marked, other]), RLELossless)
    before = list(generate_frames(ds.PixelData, number_of_frames=3))
    report = clean(ds)
    after = list(generate_frames(ds.PixelData, number_of_frames=3))
    assert (before[0], before[2]) == (after[0], after[2])
    assert before[1] != after[1]
    assert report.frames == 3


def test_a_banner_that_stays_is_blanked_in_every_frame() -> None:
    written = ink(NAME, 128, 256)
    grounds = [np.random.RandomState(seed).uniform(0, 0.3, (128, 256)) for seed in range(4)]
    ds = native(np.stack([image(np.maximum(ground, written)) for ground in grounds]))
    report = clean(ds)
    assert (array(ds)[:, written > 0.9] < 80).all()
    assert report.frames_read < 4


def test_clean_pixels_are_not_touched() -> None:
    ds = native(image(anatomy(), 12), 12)
    before = ds.PixelData
    report = clean(ds)
    assert (report.is_changed, report.regions, report.rules) == (False, (), ())
    assert ds.PixelData is before


@pytest.mark.parametrize("marker", ["R", "AP ERECT"])
def test_film_markers_stay_unless_they_are_the_name_of_the_patient(marker: str) -> None:
    pixels = image(np.maximum(anatomy(), ink(marker, 128, 256, size=24)), 12)
    assert not clean(native(pixels, 12)).is_changed
    if len(marker) > 1:
        assert clean(native(pixels, 12), index=Index([Identifier(Kind.PERSON, marker)])).is_changed


def test_without_the_option_text_holds_the_object_and_says_where() -> None:
    ds = native(image(np.maximum(anatomy(), ink(NAME, 128, 256))))
    before = ds.PixelData
    with pytest.raises(PoisonInput, match=r"text in 1 place\(s\) of the pixels: \d+,\d+,\d+,\d+") as caught:
        clean(ds, HOLDING)
    assert caught.value.reason is Reason.PIXEL_REVIEW_REQUIRED
    assert ds.PixelData == before


def test_what_cannot_be_decoded_written_or_believed_is_held() -> None:
    page = "\n".join(f"LINE {number} OF A REPORT ON SMITH JOHN" for number in range(5))
    text_only = native(image(ink(page, 110, 400, at=(5, 5), size=17)))
    claimed = native(image(anatomy()))
    claimed.BurnedInAnnotation = "YES"
    film = described(image(anatomy())[None], 8, "MONOCHROME2", MPEG2MPML, CAPTURE)
    film.add(DataElement(0x7FE00010, "OB", encapsulate([b"\xff\xd8no film\xff\xd9"])))
    twice = native(image(anatomy()))
    twice.FloatPixelData = bytes(4)
    short = native(image(anatomy()))
    short.PixelData = short.PixelData[:-200]
    tail = compressed(image(anatomy())[None], RLELossless)
    tail.PixelData = encapsulate([next(generate_frames(tail.PixelData, number_of_frames=1)) + b"Smith John"])
    for ds in (text_only, claimed, film, twice, short, tail):
        with pytest.raises(PoisonInput) as caught:
            clean(ds)
        assert caught.value.reason is Reason.PIXEL_REVIEW_REQUIRED


@pytest.mark.parametrize("is_signed", [True, False])
def test_what_hides_in_unused_bits_is_cleared_and_values_stay(is_signed: bool) -> None:
    pixels = image(anatomy(), 12, is_signed=is_signed)
    hidden = (ink(NAME, 128, 256) > 0.3).astype(np.uint16) << 13
    ds = native((pixels.view(np.uint16) ^ hidden).view(pixels.dtype), 12)
    report = clean(ds)
    assert report.rules == ("unused_bits",)
    assert ds.PixelData == pixels.tobytes()


def test_an_overlay_inside_used_bits_is_held() -> None:
    ds = native(image(anatomy(), 12), 12)
    ds.add(DataElement(0x60000010, "US", 128))
    ds.add(DataElement(0x60000102, "US", 3))
    with pytest.raises(PoisonInput, match="bits that the pixels use"):
        clean(ds)


def test_outside_ultrasound_regions_everything_goes() -> None:
    ds = native(image(np.maximum(anatomy(), ink("zqj", 128, 256, at=(2, 2), size=7))), sop_class=ULTRASOUND)
    region = Dataset()
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 20, 30
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 235, 119
    ds.SequenceOfUltrasoundRegions = Sequence([region])
    before = array(ds)
    report = clean(ds)
    after = array(ds)
    assert "ultrasound_regions" in report.rules
    assert np.array_equal(after[30:120, 20:236], before[30:120, 20:236])
    assert len(np.unique(after[:30])) == 1


def test_device_masks_go_by_manufacturer_model_class_and_size() -> None:
    policy = PixelPolicy.from_mapping(
        {"text": "blank", "masks": [{"manufacturer": "acme", "model": "x1", "rows": 128, "boxes": [[0, 0, 256, 16]]}]}
    )
    for model, is_masked in (("X1 Plus", True), ("Y2", False)):
        ds = native(image(anatomy()))
        ds.Manufacturer, ds.ManufacturerModelName = "ACME Imaging", model
        report = clean(ds, Profile(pixels=policy))
        assert (report.rules == ("device_mask",)) is is_masked
        assert (report.regions == (Box(0, 0, 256, 16),)) is is_masked


def test_decisions_release_hold_and_blank_one_object_or_all_of_a_device(tmp_path: Path) -> None:
    pixels = image(np.maximum(anatomy(), ink(NAME, 128, 256)))
    digest = hashlib.sha256(b"the original").hexdigest()
    device = device_of(native(pixels))
    decisions = Decisions().with_object(digest, Decision(Verdict.RELEASE, by="officer", reason="phantom"))
    decisions = decisions.with_device(device, Decision(Verdict.BLANK, (Box(0, 0, 256, 60),)))
    decisions.save(tmp_path / "decisions.yaml")
    loaded = Decisions.load(tmp_path / "decisions.yaml")
    assert loaded == decisions
    seen = native(pixels)
    assert clean(seen, HOLDING, decisions=loaded, digest=digest).rules == ("decision:RELEASE",)
    assert seen.PixelData == pixels.tobytes()
    like_it = native(pixels)
    assert clean(like_it, HOLDING, decisions=loaded, digest="0" * 64).regions == (Box(0, 0, 256, 60),)
    with pytest.raises(PoisonInput, match="decided to hold"):
        clean(native(pixels), decisions=Decisions().with_object(digest, Decision(Verdict.HOLD)), digest=digest)
    assert Decisions.load(tmp_path / "none.yaml") == Decisions()


@pytest.mark.parametrize(
    "content",
    [
        "decisions: [{object: abc, decision: HOLD}]",
        "decisions: [{decision: HOLD}]",
        f"decisions: [{{object: '{'0' * 64}', decision: BLANK}}]",
        f"decisions: [{{object: '{'0' * 64}', decision: MAYBE}}]",
        "decisions: [{device: {manufacturer: a}, decision: HOLD}]",
        "- 1",
        "decisions: {",
    ],
)
def test_a_wrong_file_of_decisions_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "decisions.yaml").write_text(content)
    with pytest.raises(ConfigurationError):
        Decisions.load(tmp_path / "decisions.yaml")


@pytest.mark.parametrize(
    "mapping",
    [
        {"text": "maybe"}, {"heads": "deface"}, {"defacer": "no_colon", "heads": "deface"}, {"unknown": 1},
        {"max_text_share": 0}, {"keep_markers": ["l r"]}, {"masks": [{"model": "x"}]}, {"risky_image_types": [0]}, [],
    ],
)  # fmt: skip
def test_a_wrong_pixel_policy_is_refused(mapping: object) -> None:
    with pytest.raises(ConfigurationError, match=r"pixels"):
        PixelPolicy.from_mapping(mapping)


def upper_half(frames: np.ndarray, ds: Dataset) -> np.ndarray:
    mask = np.zeros(frames.shape, bool)
    mask[:, :64] = True
    return mask


def no_mask(frames: np.ndarray, ds: Dataset) -> np.ndarray:
    raise RuntimeError(ds.PatientName)


def test_heads_are_flagged_held_or_defaced() -> None:
    def head() -> FileDataset:
        ds = native(image(anatomy(), 12), 12, sop_class=CT)
        ds.Modality, ds.BodyPartExamined, ds.PatientName = "CT", "HEAD", "Smith^John"
        return ds

    assert clean(head()).face_risk
    with pytest.raises(PoisonInput, match="head scan"):
        clean(head(), Profile(pixels=PixelPolicy(text="blank", heads="hold")))
    hook = PixelPolicy(text="blank", heads="deface", defacer=f"{__name__}:upper_half")
    ds = head()
    report = clean(ds, Profile(pixels=hook))
    assert (report.face_risk, report.rules) == (False, ("defaced",))
    assert len(np.unique(array(ds)[:64])) == 1
    with pytest.raises(PoisonInput, match="defacer failed") as caught:
        clean(head(), Profile(pixels=PixelPolicy(text="blank", heads="deface", defacer=f"{__name__}:no_mask")))
    assert "Smith" not in str(caught.value)


def test_a_real_ultrasound_loses_its_text_and_keeps_its_image() -> None:
    ds = dcmread(FILES / "examples_palette.dcm")
    before = ds.pixel_array
    report = clean(ds)
    after = array(ds)
    assert len(np.unique(after[:58])) == 1
    assert np.array_equal(after[120:, 330:600], before[120:, 330:600])
    assert report.residual_words == 0


def test_the_same_object_gives_the_same_bytes() -> None:
    made = [native(image(np.maximum(anatomy(), ink(NAME, 128, 256)))) for _ in range(2)]
    reports = [clean(ds) for ds in made]
    assert made[0].PixelData == made[1].PixelData
    assert reports[0] == reports[1]


def test_a_device_is_named_by_what_its_images_say() -> None:
    ds = native(image(anatomy()))
    ds.Manufacturer, ds.ManufacturerModelName = "ACME", "X1"
    assert device_of(ds) == Device("acme", "x1", CAPTURE, 128, 256)
