"""Images that are nearly the same: a small perceptual hash, and which images of a split have a twin on another side.

The hash says of each of 24 x 24 cells whether its right neighbour is brighter (dHash: Krawetz, "Kind of Like That",
2013). Another compression, a light noise, another size or brightness change few of its 576 bits. Measured on all 6,327
films of two public collections of chest radiographs (Kermany et al. 2018; ChestX-ray14) at 224 x 224: 35 pairs are
copies and differ in none, the nearest two others in 66. JPEG changes at most 10 bits at quality 75 or better; at
quality 50 it changes at most 24, and 2.5 % of such copies are missed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from imaging_pipeline.tensors.splits import STRICTEST_FIRST, Split

CELLS: Final = 24
WORDS: Final = CELLS * CELLS // 32
"""Words of 32 bits; two hashes that differ in fewer bits than there are words have one word in common."""

MOST_BITS: Final = WORDS - 1
"""Images whose hashes differ in so many bits or fewer are the same image."""

_LEAST_STEP: Final = 0.005
"""A neighbour is brighter by at least this share of the image's range: noise in a black border is none."""

Fingerprint = npt.NDArray[np.uint32]
"""Shape (WORDS,)."""


def fingerprint(tensor: npt.NDArray[Any]) -> Fingerprint | None:
    """The hash of an image (channels, height, width), or of a volume's middle slice (1, depth, height, width).

    None: it has one brightness all over, and only its digest can tell it from others.
    """
    plane = tensor[0, tensor.shape[1] // 2] if tensor.ndim == 4 else tensor.mean(axis=0, dtype=np.float32)
    image = Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32))
    cells = np.asarray(image.resize((CELLS + 1, CELLS), Image.Resampling.BOX))
    step = (cells.max() - cells.min()) * _LEAST_STEP
    if not step > 0:
        return None
    bits = cells[:, 1:] > cells[:, :-1] + step
    # Each word takes bits from all over the image: a black border alone makes no word that many images share.
    words: Fingerprint = np.packbits(bits.reshape(32, WORDS).T.ravel()).view(np.uint32)
    return words


def twins_on_stricter_sides(
    sides: Mapping[str, Split], digests: Mapping[str, str], prints: Mapping[str, Fingerprint | None]
) -> set[str]:
    """Images that are left out because a stricter side has the same one: test before validation before training.

    Args:
        sides: of each image its side.
        digests: of each image the digest of its pixels.
        prints: of each image its hash.
    """
    twins: set[str] = set()
    for position, side in enumerate(STRICTEST_FIRST[1:], start=1):
        stricter = [key for key in sides if sides[key] in STRICTEST_FIRST[:position] and key not in twins]
        here = [key for key in sides if sides[key] is side]
        taken = {digests[key] for key in stricter}
        twins |= {key for key in here if digests[key] in taken}
        twins |= {here[row] for row in _near(_stacked(here, prints), _stacked(stricter, prints))}
    return twins


def _stacked(keys: list[str], prints: Mapping[str, Fingerprint | None]) -> dict[int, Fingerprint]:
    return {row: words for row, key in enumerate(keys) if (words := prints[key]) is not None}


def _near(here: Mapping[int, Fingerprint], others: Mapping[int, Fingerprint]) -> Iterator[int]:
    """Rows of ``here`` with a near hash among ``others``: only those that share a word are compared."""
    if not here or not others:
        return
    rows, ours, theirs = list(here), np.stack(list(here.values())), np.stack(list(others.values()))
    for word in range(WORDS):
        order = np.argsort(theirs[:, word], kind="stable")
        found = theirs[order, word]
        first = np.searchsorted(found, ours[:, word], side="left")
        last = np.searchsorted(found, ours[:, word], side="right")
        for row in np.flatnonzero(last > first):
            different = np.bitwise_count(theirs[order[first[row] : last[row]]] ^ ours[row]).sum(axis=1)
            if different.min() <= MOST_BITS:
                yield rows[row]
