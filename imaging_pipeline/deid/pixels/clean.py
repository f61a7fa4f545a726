"""From an object's pixels to pixels that may be released, or to a person's desk.

Owns the order of things: judge the header, blank what is known, read the frames, blank what is found, look again.
Contains no detection and no coding of pixels.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.pixels.processing import apply_color_lut
from pydicom.tag import Tag

from imaging_pipeline.deid.pixels import bits, faces, streams
from imaging_pipeline.deid.pixels.boxes import Box, distinct, written
from imaging_pipeline.deid.pixels.decisions import Decision, Decisions, Verdict
from imaging_pipeline.deid.pixels.find import SMALLEST_SIDE, find_text
from imaging_pipeline.deid.pixels.frames import PIXEL_KEYWORDS, Frames, Samples, hold
from imaging_pipeline.deid.pixels.header import texts
from imaging_pipeline.deid.pixels.masks import device_boxes, device_of, outside_ultrasound_regions
from imaging_pipeline.deid.pixels.policy import DEFACE, HOLD, PixelPolicy
from imaging_pipeline.deid.pixels.views import Plane, Views, plane_of, regions, strokes, views_of
from imaging_pipeline.errors import PoisonInput, Reason

if TYPE_CHECKING:  # the profile reads its pixel section with this package
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

    from imaging_pipeline.deid.screen import Index

ROUNDS: Final = 3
"""How often a frame is blanked and looked at again before it goes to a person."""

BESIDE: Final = 4
"""Pixels beside a blanked box that its edge makes look like strokes."""

AROUND: Final = 48
"""Pixels around a blanked box that are read again."""

ALIKE: Final = 0.6
"""Correlation from which two frames show the same thing in a box."""


class PixelProfile(Protocol):
    """What is asked of a profile."""

    @property
    def sop_classes(self) -> AbstractSet[str]:
        """SOP classes that are released."""

    @property
    def pixels(self) -> PixelPolicy:
        """What may be in pixels."""


@dataclass(frozen=True, slots=True)
class PixelReport:
    """What was done to the pixels of one object.

    Attributes:
        frames: number of frames.
        frames_read: frames the text detector has read; the others passed the stroke filter.
        regions: what was blanked in any frame, in reading order.
        rules: why, sorted: ``device_mask``, ``ultrasound_regions``, ``text``, ``decision:VERDICT``, ``unused_bits``,
            ``defaced``.
        is_changed: whether the pixel data is another than before.
        residual_words: words found when looking again; an object with one is held, so this is 0.
        face_risk: whether a face could be reconstructed from the object's series.
    """

    frames: int = 0
    frames_read: int = 0
    regions: tuple[Box, ...] = ()
    rules: tuple[str, ...] = ()
    is_changed: bool = False
    residual_words: int = 0
    face_risk: bool = False


def clean_pixels(
    ds: FileDataset,
    profile: PixelProfile,
    syntax: str,
    index: Index,
    decisions: Decisions | None = None,
    *,
    digest: str = "",
) -> PixelReport:
    """Blank text in the pixels of ``ds``, or refuse the object.

    Args:
        ds: the identified object; its pixel data is changed in place, in its transfer syntax, frames without a finding
            byte for byte the same.
        profile: the SOP classes that are released and the pixel policy.
        syntax: Transfer Syntax UID.
        index: identifiers of the patient.
        decisions: what people have decided.
        digest: SHA-256 of the object's bytes, by which a decision names it.

    Raises:
        PoisonInput: SOP_CLASS_NOT_RELEASED, or PIXEL_REVIEW_REQUIRED with the reason and the boxes found.
    """
    classes = texts(ds, "SOPClassUID")
    if len(classes) != 1 or classes[0] not in profile.sop_classes:
        raise PoisonInput(Reason.SOP_CLASS_NOT_RELEASED, "the profile does not release this SOP class")
    present = [keyword for keyword in PIXEL_KEYWORDS if Tag(keyword) in ds]
    if len(present) > 1:
        raise hold("the object has pixel data of more than one kind")
    if not present:
        return PixelReport()
    device = device_of(ds)
    scope, decision = (decisions or Decisions()).on(digest, device)
    if decision is not None and decision.verdict is Verdict.HOLD:
        raise hold("a person has decided to hold it")
    policy = profile.pixels
    streams.check(ds, present[0], syntax, policy.comment_prefixes, index)
    bits.check_overlays(ds)
    risk = _risk(ds, policy)
    if decision is None:
        _hold_unseen(ds, policy, risk)
    job = _Job(ds, policy, index, Frames(ds, present[0], syntax))
    job.is_risky = bool(risk) or classes[0] not in policy.filtered_sop_classes
    if policy.blanks:
        job.add("device_mask", device_boxes(device, policy.masks))
        job.add("ultrasound_regions", outside_ultrasound_regions(ds, device))
    if decision is not None:
        job.decide(decision)
    face_risk = faces.is_face_possible(ds)
    if face_risk and policy.heads == DEFACE:
        face_risk = not job.deface(faces.load_defacer(policy.defacer))
    job.run(is_looked_at=scope == "object" and decision is not None and decision.verdict is Verdict.RELEASE)
    if _says_burned_in(ds) and decision is None and not job.regions:
        raise hold("Burned In Annotation is not NO, and no text was found")
    job.frames.write()
    return PixelReport(**job.found(), face_risk=face_risk)


def _hold_unseen(ds: FileDataset, policy: PixelPolicy, risk: str) -> None:
    """Refuse what the header alone gives to a person, as long as none has decided."""
    if risk and not policy.blanks:
        raise hold(risk)
    if "YES" in texts(ds, "RecognizableVisualFeatures") and policy.heads != DEFACE:
        raise hold("Recognizable Visual Features is YES")
    if policy.heads == HOLD and faces.is_face_possible(ds):
        raise hold("it is a head scan, from which a face could be reconstructed")


def _risk(ds: FileDataset, policy: PixelPolicy) -> str:
    """Why the header makes text in the pixels likely (PS3.3 C.7.6.1.1.5, C.8.6.1), or nothing."""
    if _says_burned_in(ds):
        return "Burned In Annotation is not NO"
    if texts(ds, "BurnedInAnnotation"):
        return ""
    if not policy.risky_conversion_types.isdisjoint(texts(ds, "ConversionType")):
        return "the Conversion Type is one that often holds text, and Burned In Annotation is missing"
    if not policy.risky_image_types.isdisjoint(texts(ds, "ImageType")):
        return "the Image Type is that of a screen, and Burned In Annotation is missing"
    if not policy.photometric_interpretations.issuperset(texts(ds, "PhotometricInterpretation")):
        return "the image is in colour, as screen captures are, and Burned In Annotation is missing"
    return ""


def _says_burned_in(ds: FileDataset) -> bool:
    return texts(ds, "BurnedInAnnotation") not in ([], [""], ["NO"])


@dataclass(slots=True)
class _Job:
    """The frames of one object while they are cleaned."""

    ds: FileDataset
    policy: PixelPolicy
    index: Index
    frames: Frames
    is_risky: bool = True
    known: list[Box] = field(default_factory=list)
    rules: set[str] = field(default_factory=set)
    regions: set[Box] = field(default_factory=set)
    masks: NDArray[np.bool_] | None = None
    read: int = 0
    _last: Views | None = None

    def add(self, rule: str, boxes: Iterable[Box]) -> None:
        """Boxes that are blanked in every frame."""
        before = len(self.known)
        self.known += boxes
        if len(self.known) > before:
            self.rules.add(rule)

    def decide(self, decision: Decision) -> None:
        """Carry out what a person decided."""
        self.rules.add(f"decision:{decision.verdict}")
        self.known += [box.within(self.frames.rows, self.frames.columns) for box in decision.boxes]

    def deface(self, defacer: faces.Defacer) -> bool:
        """Ask the hook for the face; False when it sees none."""
        volume = np.stack([self.frames.read(number) for number in range(self.frames.count)])
        try:
            mask = np.asarray(defacer(volume, self.ds))
        except Exception:  # noqa: BLE001  # whatever the site's hook raises, its text may quote values
            raise hold("the defacer failed on the object") from None
        if mask.dtype != np.bool_ or mask.shape != volume.shape:
            raise hold("the defacer gave no mask of the shape of the frames")
        self.masks = mask
        self.rules.add("defaced")
        return bool(mask.any())

    def run(self, *, is_looked_at: bool) -> _Job:
        """Blank every frame and look again."""
        found: dict[bytes, tuple[Box, ...]] = {}
        texts: list[tuple[Box, ...]] = []
        patches: dict[Box, Plane] = {}
        for number in range(self.frames.count):
            key = hashlib.sha256(self.frames.stored(number)).digest()
            if key not in found:
                found[key] = () if is_looked_at else self._found(self.frames.read(number), number, patches)
            texts.append(found[key])
        self._judge(texts)
        for number, boxes in enumerate(texts):
            self._blank(number, [*self.known, *boxes], patches)
        return self

    def found(self) -> dict[str, Any]:
        """The fields of the report."""
        return {
            "frames": self.frames.count,
            "frames_read": self.read,
            "regions": distinct(self.regions),
            "rules": tuple(sorted(self.rules)),
            "is_changed": bool(self.frames.changed),
        }

    def _found(self, cells: Samples, number: int, patches: dict[Box, Plane]) -> tuple[Box, ...]:
        """Text of a frame, with what is blanked anyhow left out."""
        if max(self.frames.rows, self.frames.columns) < SMALLEST_SIDE:
            return ()
        plane = self._plane(cells)
        again = [box for box, patch in patches.items() if _alike(patch, plane[box.rows, box.columns])]
        seen = views_of(self._without(plane, self.known))
        found = strokes(seen, self._last)
        for box in (*self.known, *again):
            beside = box.grown(BESIDE).within(self.frames.rows, self.frames.columns)
            found[beside.rows, beside.columns] = False
        is_whole = number == 0 and self.is_risky
        places = regions(found)
        if not is_whole and not places:
            return ()
        self.read += 1
        self._last = seen
        boxes = find_text(seen, self.policy.keep_markers, self.index, places, is_whole=is_whole).boxes
        patches |= {box: plane[box.rows, box.columns].copy() for box in boxes}
        return boxes

    def _judge(self, texts: list[tuple[Box, ...]]) -> None:
        every = distinct(box for boxes in texts for box in boxes)
        if not every:
            return
        if not self.policy.blanks and "decision:BLANK" not in self.rules:
            raise hold(f"text in {len(every)} place(s) of the pixels: {written(every)}")
        area = self.frames.rows * self.frames.columns
        if any(sum(box.area for box in boxes) > self.policy.max_text_share * area for boxes in texts):
            raise hold(f"most of a frame is text: {written(every)}")
        self.rules.add("text")

    def _blank(self, number: int, boxes: list[Box], patches: dict[Box, Plane]) -> None:
        cells = self.frames.read(number)
        plane = self._plane(cells) if patches else None
        for box, patch in patches.items():
            if plane is not None and box not in boxes and _alike(patch, plane[box.rows, box.columns]):
                boxes.append(box)
        changed = bits.without_unused(cells, self.frames, self.ds)
        if (changed != cells).any():
            self.rules.add("unused_bits")
        for round_number in range(ROUNDS):
            fill = self._fill(changed)
            for box in boxes:
                if (changed[box.rows, box.columns] != fill).any():
                    self.regions.add(box)
                    changed[box.rows, box.columns] = fill
            if self.masks is not None:
                changed[self.masks[number]] = fill
            if np.array_equal(changed, cells):
                return
            self.frames.blank(number, self._touched(number, boxes, round_number), changed, fill)
            boxes = self._left(number, boxes)
            if not boxes:
                return
            changed = self.frames.read(number)
        raise hold(f"text is left after blanking: {written(boxes)}")

    def _touched(self, number: int, boxes: list[Box], round_number: int) -> list[Box]:
        whole = Box(0, 0, self.frames.columns, self.frames.rows)
        is_masked = self.masks is not None and bool(self.masks[number].any())
        return [whole] if is_masked and round_number == 0 else boxes

    def _left(self, number: int, blanked: list[Box]) -> list[Box]:
        """Text that is found in a frame as it is written now, near what was blanked: the rest was read before."""
        seen = views_of(self._plane(self.frames.read(number)))
        found, near = strokes(seen), np.zeros((self.frames.rows, self.frames.columns), bool)
        for box in blanked:
            around = box.grown(AROUND).within(*near.shape)
            near[around.rows, around.columns] = True
        return list(find_text(seen, self.policy.keep_markers, self.index, regions(found & near)).boxes)

    def _without(self, plane: Plane, boxes: list[Box]) -> Plane:
        if not boxes:
            return plane
        plane = plane.copy()
        for box in boxes:
            plane[box.rows, box.columns] = plane.min()
        return plane

    def _plane(self, cells: Samples) -> Plane:
        if self.frames.photometric == "PALETTE COLOR":
            return apply_color_lut(cells.astype(np.int64), self.ds)[..., :3].astype(np.float32)
        meaning = bits.values_of(cells, self.frames)
        return plane_of(meaning, self.frames.photometric)

    def _fill(self, cells: Samples) -> Samples:
        """Black, as a cell (one per sample): the darkest value the frame has, so that its range stays."""
        if self.frames.photometric.startswith("YBR_FULL") and self.frames.samples == 3:
            middle = 1 << (self.frames.bits_stored - 1)
            return np.array([0, middle, middle], cells.dtype)
        if self.frames.samples > 1:
            return np.zeros(self.frames.samples, cells.dtype)
        order = bits.values_of(cells, self.frames)
        if self.frames.photometric == "PALETTE COLOR":
            order = self._plane(cells).sum(axis=2)
        place = order.argmax() if self.frames.photometric == "MONOCHROME1" else order.argmin()
        return cells.ravel()[place : place + 1]


def _alike(one: Plane, other: Plane) -> bool:
    """Whether two patches of the same size show the same thing: their correlation."""
    first, second = one.ravel() - one.mean(), other.ravel() - other.mean()
    size = float(np.sqrt((first @ first) * (second @ second)))
    return size > 0 and float(first @ second) >= ALIKE * size
