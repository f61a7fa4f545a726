"""One output against the list of its source: what is left, what was lost, what moved, what is still seen."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field

import numpy as np
from pydicom.dataset import FileDataset
from pydicom.multival import MultiValue
from pydicom.uid import JPEGBaseline8Bit

from imaging_pipeline_tests.deid.planted.pixels import frames_of, visible
from imaging_pipeline_tests.deid.planted.plants import DIRECT, Keep, Plant, Planted
from imaging_pipeline_tests.deid.planted.search import Output, compact, quietly, value_at

SEEN = 0.3
"""A mark whose box correlates more than this with the original still shows it."""
KEPT = 0.9
_LOSSY_TOLERANCE = 6


@dataclass
class Verdict:
    """What one output does with one planted object.

    Attributes:
        left: plants that are still there.
        missing: paths of keeps whose attribute is gone.
        emptied: paths of keeps whose attribute has no value.
        changed: keeps whose words are gone.
        moved: days each shifted date has moved by; None where the date is gone.
        mapped: original UID to new one by path; None where it is gone.
        seen: burned-in marks that are still seen.
        overlays: overlays that came out as they were.
        blanked: marks that should have stayed and did not.
        hidden_bits: whether bits above the stored ones hold something.
        touched: whether pixels outside every hidden mark differ.
    """

    left: list[Plant] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    emptied: list[str] = field(default_factory=list)
    changed: list[Keep] = field(default_factory=list)
    moved: dict[str, int | None] = field(default_factory=dict)
    mapped: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    overlays: list[str] = field(default_factory=list)
    blanked: list[str] = field(default_factory=list)
    hidden_bits: bool = False
    touched: bool = False
    patient_id: str = ""

    @property
    def direct(self) -> list[Plant]:
        """What is left and names the patient."""
        return [plant for plant in self.left if plant.kind in DIRECT]


def judge(planted: Planted, data: bytes) -> Verdict:
    """Compare an output of any tool with what was planted."""
    output = Output(data)
    verdict = Verdict(left=output.left(planted.plants), patient_id=str(output.ds.get("PatientID", "")))
    for keep in planted.keeps:
        _judge_keep(keep, output.ds, verdict)
    for day in planted.days:
        verdict.moved[day.path] = _days(day.original, value_at(output.ds, day.path))
    before = quietly(planted.data)
    for path in planted.uids:
        after = value_at(output.ds, path)
        verdict.mapped[path] = str(value_at(before, path)), str(after) if after else None
    verdict.overlays = _overlays_left(before, output.ds)
    if "PixelData" in before:
        _judge_pixels(planted, before, output.ds, verdict)
    return verdict


def _overlays_left(before: FileDataset, after: FileDataset) -> list[str]:
    """Overlays whose bits came out as they were: nobody has read them."""
    tags = [group << 16 | 0x3000 for group in range(0x6000, 0x6100, 2)]
    return [f"overlay {tag:08X}" for tag in tags if tag in before and tag in after and before[tag] == after[tag]]


def _judge_keep(keep: Keep, ds: FileDataset, verdict: Verdict) -> None:
    value = value_at(ds, keep.path)
    if value is None:
        parent, _, tag = keep.path.rpartition(".")
        is_there = int(tag, 16) in ds if not parent else False
        (verdict.emptied if is_there else verdict.missing).append(keep.path)
        return
    texts = [str(one) for one in value] if isinstance(value, (MultiValue, list)) else [str(value)]
    if not any(texts):
        verdict.emptied.append(keep.path)
        return
    if keep.is_whole:
        if tuple(map(_plain, texts)) != tuple(map(_plain, keep.words)):
            verdict.changed.append(keep)
    elif not all(compact(word) in compact(" ".join(texts)) for word in keep.words):
        verdict.changed.append(keep)


def _plain(text: str) -> str:
    try:
        return repr(float(text))
    except ValueError:
        return text.strip()


def _days(original: str, value: object) -> int | None:
    try:
        then = dt.datetime.strptime(str(value)[:8], "%Y%m%d").replace(tzinfo=dt.UTC)
        return (then - dt.datetime.strptime(original, "%Y%m%d").replace(tzinfo=dt.UTC)).days
    except ValueError:
        return None


def _judge_pixels(planted: Planted, before: FileDataset, after: FileDataset, verdict: Verdict) -> None:
    if "PixelData" not in after:
        verdict.touched = True
        verdict.blanked = [_label(planted, number) for number, mark in enumerate(planted.marks) if not mark.is_hidden]
        return
    for number, mark in enumerate(planted.marks):
        strength = visible(before, after, mark)
        if mark.is_hidden and strength > SEEN:
            verdict.seen.append(_label(planted, number))
        if not mark.is_hidden and strength < KEPT:
            verdict.blanked.append(_label(planted, number))
    stored = int(after.BitsStored)
    if stored < int(after.BitsAllocated) == 16:
        verdict.hidden_bits = bool((np.frombuffer(_native(after), "<u2") >> stored).any())
    verdict.touched = not _same_outside_marks(planted, before, frames_of(before), frames_of(after))


def _same_outside_marks(planted: Planted, before: FileDataset, old: np.ndarray, new: np.ndarray) -> bool:
    """Whether pixels are equal, unused bits aside, wherever nothing had to be hidden."""
    if old.shape != new.shape:
        return False
    if before.file_meta.get("TransferSyntaxUID") == JPEGBaseline8Bit and not planted.is_clean:
        same = np.abs(old.astype(int) - new.astype(int)) <= _LOSSY_TOLERANCE
    elif before.PixelRepresentation == 0:
        same = (old & (2 ** int(before.BitsStored) - 1)) == new
    else:
        same = old == new
    for mark in planted.marks:
        if mark.is_hidden:
            top, left, bottom, right = _around(mark.box, old.shape[1:3])
            same[mark.frame, top:bottom, left:right] = True
    return bool(same[:, _image_area(before, old.shape[1:3])].all())


def _image_area(ds: FileDataset, shape: tuple[int, ...]) -> np.ndarray:
    """Where the image is: inside the regions an ultrasound image declares (PS3.3 C.8.5.5), else everywhere."""
    regions = ds.get("SequenceOfUltrasoundRegions")
    area = np.full(shape, not regions)
    for region in regions or ():
        rows = slice(region.RegionLocationMinY0, region.RegionLocationMaxY1 + 1)
        area[rows, region.RegionLocationMinX0 : region.RegionLocationMaxX1 + 1] = True
    return area


def _native(ds: FileDataset) -> bytes:
    return ds.PixelData if not ds.file_meta.TransferSyntaxUID.is_encapsulated else ds.pixel_array.tobytes()


def _around(box: tuple[int, int, int, int], shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """A box with the margin a tool may take: two letters' height each side, and the rest of a line it stands in."""
    top, left, bottom, right = box
    margin = 2 * max(8, min(bottom - top, right - left))
    if bottom - top > right - left:
        return 0, max(0, left - margin), shape[0], min(shape[1], right + margin)
    return max(0, top - margin), 0, min(shape[0], bottom + margin), shape[1]


def _label(planted: Planted, number: int) -> str:
    mark = planted.marks[number]
    return f"{planted.name} frame {mark.frame} mark {number}"
