"""Waveforms (PS3.3 C.10.9): samples are numbers; nothing else may travel in their place.

Owns that check. Contains no reading of signals.
"""

from __future__ import annotations

from pydicom.dataset import Dataset

from imaging_pipeline.deid.reading import attribute, texts_of
from imaging_pipeline.errors import PoisonInput, Reason


def check(ds: Dataset) -> None:
    """Hold an object whose waveform data is longer than its samples: the rest may be anything.

    Raises:
        PoisonInput: NOT_DEIDENTIFIABLE.
    """
    groups = attribute(ds, "WaveformSequence")
    if groups is None or groups.VR != "SQ":
        return
    for number, group in enumerate(groups.value or ()):
        data = attribute(group, "WaveformData")
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
                dicom_path=f"{groups.tag:08X}[{number}].{data.tag:08X}",
            )


def _number(ds: Dataset, keyword: str) -> int:
    found = texts_of(ds, keyword)
    return int(found[0]) if found and found[0].isdigit() else 0
