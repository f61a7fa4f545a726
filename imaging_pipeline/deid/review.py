"""A person's decision about an object that was held for its pixels, noted for the next run.

Owns the way from an object to what a decision names: the digest of its bytes, or its device.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from imaging_pipeline.deid.inputs import Item
from imaging_pipeline.deid.pixels import Decision, Decisions, Verdict
from imaging_pipeline.deid.pixels.masks import device_of
from imaging_pipeline.deid.reading import quiet, read
from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.objects.reading import ObjectReader


def decided(path: Path, item: Item, decision: Decision, *, is_for_device: bool) -> None:
    """Note a decision in the file of decisions, which is made when it is missing.

    Args:
        path: the file.
        item: the object.
        decision: what was decided.
        is_for_device: it counts for all images of the object's device, SOP class and size.

    Raises:
        ConfigurationError: the decision makes no sense, or the file cannot be read.
        PoisonInput: the object cannot be read.
    """
    if bool(decision.boxes) != (decision.verdict is Verdict.BLANK):
        raise ConfigurationError("BLANK, and nothing else, needs boxes: name each with --box")
    decisions = Decisions.load(path)
    data = ObjectReader().read_all(item.target)
    if is_for_device:
        with quiet():
            decisions = decisions.with_device(device_of(read(data)), decision)
    else:
        decisions = decisions.with_object(hashlib.sha256(data).hexdigest(), decision)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    decisions.save(path)
