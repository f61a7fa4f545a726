"""Waveforms (PS3.3 C.10.9): samples are numbers; nothing else may travel in their place.

Owns that check. Contains no reading of signals.
"""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.tag import Tag

from imaging_pipeline.deid.reading import element, values
from imaging_pipeline.errors import PoisonInput, Reason


def check(ds: Dataset) -> None:
    """Hold an object whose waveform data is longer than its samples: the rest may be anything.

    Raises:
        PoisonInput: NOT_DEIDENTIFIABLE.
    """
    tag = Tag("WaveformSequence")
    groups = element(ds, tag) if tag in ds else None
    if groups is None or groups.VR != "SQ":
        return
    for number, group in enumerate(groups.value or ()):
        data = element(group, Tag("WaveformData")) if "WaveformData" in group else None
        if data is None or not isinstance(data.value, bytes):
            continue
        expected = (
            _number(group, "NumberOfWaveformChannels")
            * _number(group, "NumberOfWaveformSamples")
            * _number(group, "WaveformBitsAllocated")
            // 8
        )
        if any(data.value[expected:]):
            raise PoisonInput(
                Reason.NOT_DEIDENTIFIABLE,
                "the waveform data is longer than its samples",
                dicom_path=f"{tag:08X}[{number}].{Tag('WaveformData'):08X}",
            )


def _number(ds: Dataset, keyword: str) -> int:
    found = values(element(ds, Tag(keyword))) if keyword in ds else []
    return int(found[0]) if found and found[0].isdigit() else 0
