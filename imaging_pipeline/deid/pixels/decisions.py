"""What people decided about pixels: by object, or by device for all images like it.

Owns the file of decisions. Contains no pixels and no identifiers: an object is named by its digest.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

from imaging_pipeline.deid.pixels.boxes import Box, box_of
from imaging_pipeline.deid.pixels.masks import Device
from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.yaml_files import read_yaml

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_KEYS: Final = ("object", "device", "decision", "boxes", "by", "reason")
_DEVICE_KEYS: Final = ("manufacturer", "model", "sop_class", "rows", "columns")


class Verdict(enum.StrEnum):
    """What was decided."""

    RELEASE = "RELEASE"
    HOLD = "HOLD"
    BLANK = "BLANK"


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision.

    Attributes:
        verdict: RELEASE: of an object, its pixels stay as they are; of a device, its images are no longer held for what
            their header says, but still read. HOLD: never released. BLANK: ``boxes`` are blanked in every frame, then
            the frames are read as ever.
        boxes: for BLANK.
        by, reason: who decided, and why; for the record.
    """

    verdict: Verdict
    boxes: tuple[Box, ...] = ()
    by: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Decisions:
    """All decisions; an object's own goes before its device's.

    Attributes:
        objects: by SHA-256 of the original object's bytes.
        devices: by manufacturer, model, SOP class, rows and columns, exactly.
    """

    objects: Mapping[str, Decision] = field(default_factory=dict)
    devices: Mapping[Device, Decision] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Decisions:
        """Read a file of decisions; one that does not exist holds none.

        Raises:
            ConfigurationError: naming the entry and what is allowed.
        """
        document = read_yaml(path, "the file of decisions") if path.exists() else None
        entries = (document or {}).get("decisions") if isinstance(document, dict | None) else document
        if not isinstance(entries, list | None):
            raise ConfigurationError("the file of decisions: expected one key, decisions, with a list")
        objects: dict[str, Decision] = {}
        devices: dict[Device, Decision] = {}
        for position, entry in enumerate(entries or ()):
            digest, device, decision = _entry(position, entry)
            if device is None:
                objects[digest] = decision
            else:
                devices[device] = decision
        return cls(objects, devices)

    def save(self, path: Path) -> None:
        """Write the file anew, atomically."""
        entries = [{"object": digest, **_plain(decision)} for digest, decision in sorted(self.objects.items())]
        ordered = sorted(self.devices.items(), key=lambda item: _device_key(item[0]))
        entries += [{"device": _device_plain(device), **_plain(decision)} for device, decision in ordered]
        partial = path.with_name(f"{path.name}.partial")
        partial.write_text(yaml.safe_dump({"decisions": entries}, sort_keys=False, allow_unicode=True), "utf-8")
        partial.replace(path)

    def with_object(self, digest: str, decision: Decision) -> Decisions:
        """These decisions and one on an object."""
        return Decisions({**self.objects, digest: decision}, self.devices)

    def with_device(self, device: Device, decision: Decision) -> Decisions:
        """These decisions and one on all images of a device."""
        return Decisions(self.objects, {**self.devices, device: decision})

    def on(self, digest: str, device: Device) -> tuple[str, Decision | None]:
        """``object`` or ``device`` and the decision that counts, or ``""`` and None."""
        if digest and digest in self.objects:
            return "object", self.objects[digest]
        if device in self.devices:
            return "device", self.devices[device]
        return "", None


def _entry(position: int, entry: object) -> tuple[str, Device | None, Decision]:
    where = f"decision {position + 1}"
    if not isinstance(entry, dict) or not set(entry) <= set(_KEYS) or ("object" in entry) == ("device" in entry):
        raise ConfigurationError(f"{where}: expected either object or device, and of {', '.join(_KEYS[2:])}")
    digest = str(entry.get("object", ""))
    if "object" in entry and not _DIGEST.fullmatch(digest):
        raise ConfigurationError(f"{where}: object is the SHA-256 of the original, 64 hexadecimal digits in quotes")
    device = _device(where, entry["device"]) if "device" in entry else None
    if entry.get("decision") not in set(Verdict):
        raise ConfigurationError(f"{where}: decision is one of {', '.join(Verdict)}")
    found = entry.get("boxes") or []
    boxes = [box_of(item) if isinstance(item, list) else None for item in found] if isinstance(found, list) else [None]
    if None in boxes or bool(boxes) != (entry["decision"] == Verdict.BLANK):
        raise ConfigurationError(f"{where}: BLANK, and nothing else, has boxes: a list of [left, top, right, bottom]")
    texts = {key: str(entry.get(key) or "") for key in ("by", "reason")}
    return digest, device, Decision(Verdict(entry["decision"]), tuple(box for box in boxes if box), **texts)


def _device(where: str, found: object) -> Device:
    if not isinstance(found, dict) or set(found) != set(_DEVICE_KEYS):
        raise ConfigurationError(f"{where}: device has the keys {', '.join(_DEVICE_KEYS)}")
    texts = [found[key] for key in _DEVICE_KEYS[:3]]
    sizes = [found[key] for key in _DEVICE_KEYS[3:]]
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(size, int) for size in sizes):
        raise ConfigurationError(
            f"{where}: manufacturer, model and sop_class are texts in quotes, rows and columns numbers"
        )
    return Device(texts[0].lower(), texts[1].lower(), texts[2], *sizes)


def _plain(decision: Decision) -> dict[str, object]:
    plain: dict[str, object] = {"decision": str(decision.verdict)}
    if decision.boxes:
        plain["boxes"] = [list(box) for box in decision.boxes]
    return plain | {key: text for key, text in (("by", decision.by), ("reason", decision.reason)) if text}


def _device_plain(device: Device) -> dict[str, object]:
    return dict(zip(_DEVICE_KEYS, _device_key(device), strict=True))


def _device_key(device: Device) -> tuple[str, str, str, int, int]:
    return device.manufacturer, device.model, device.sop_class, device.rows, device.columns
