"""Pixels: what is burned into them, found, blanked and looked for again.

`clean_pixels` is the way in. Owns the reading and changing of pixel data, the device masks, the text detector and the
decisions of people. Contains no keys and no change of any other element.
"""

from imaging_pipeline.deid.pixels.boxes import Box
from imaging_pipeline.deid.pixels.clean import PixelReport, clean_pixels
from imaging_pipeline.deid.pixels.decisions import Decision, Decisions, Verdict
from imaging_pipeline.deid.pixels.frames import PIXEL_KEYWORDS
from imaging_pipeline.deid.pixels.policy import PixelPolicy

__all__ = [
    "PIXEL_KEYWORDS", "Box", "Decision", "Decisions", "PixelPolicy", "PixelReport", "Verdict", "clean_pixels",
]  # fmt: skip
