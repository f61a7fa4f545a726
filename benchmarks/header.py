"""Headers to DICOM JSON: this package against pydicom, in turn, by CPU time per object. Last line: one JSON object.

Input: the test files of pydicom that pydicom itself can read, and 300 phantoms; all bytes are in memory.
"""

from __future__ import annotations

import io
import json
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pydicom

from imaging_pipeline.dicom.header import HeaderReader
from imaging_pipeline.errors import PoisonInput
from imaging_pipeline.samples.phantoms import make_image, plan_patient

ROUNDS = 5
PHANTOM_PATIENTS = 100
LARGEST_BYTES = 300_000


def pydicom_json(data: bytes) -> str:
    ds = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True, force=True)
    return ds.to_json(bulk_data_element_handler=lambda _: "bulk")


def own_json(reader: HeaderReader) -> Callable[[bytes], str]:
    return lambda data: reader.read(data).json


def readable_files() -> list[bytes]:
    found = []
    for path in sorted((Path(pydicom.__file__).parent / "data" / "test_files").rglob("*")):
        if path.is_file() and path.stat().st_size <= LARGEST_BYTES:
            data = path.read_bytes()
            try:
                pydicom_json(data)
                HeaderReader().read(data)
            except (PoisonInput, Exception):  # noqa: BLE001 - only what both can read is compared
                continue
            found.append(data)
    return found


def phantoms() -> list[bytes]:
    plans = (plan for number in range(PHANTOM_PATIENTS) for plan in plan_patient(7, number, 96))
    return [make_image(plan).content for plan in plans][:300]


def cpu_seconds(function: Callable[[bytes], str], objects: list[bytes]) -> float:
    start = time.process_time()
    for data in objects:
        function(data)
    return (time.process_time() - start) / len(objects)


def compare(name: str, objects: list[bytes]) -> dict[str, float]:
    own, peer = [], []
    for _ in range(ROUNDS):
        own.append(cpu_seconds(own_json(HeaderReader()), objects))  # a new reader: nothing is remembered from before
        peer.append(cpu_seconds(pydicom_json, objects))
    ratio = statistics.median(b / a for a, b in zip(own, peer, strict=True))
    own_us, peer_us = statistics.median(own) * 1e6, statistics.median(peer) * 1e6
    print(f"{name}: {len(objects)} objects, {own_us:.0f} against {peer_us:.0f} µs")
    return {f"{name}_us": own_us, f"{name}_ratio_vs_pydicom": ratio}


def main() -> None:
    warnings.simplefilter("ignore")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    figures = compare("mixed", readable_files()) | compare("phantoms", phantoms())
    print(json.dumps({key: round(value, 2) for key, value in figures.items()}))


if __name__ == "__main__":
    main()
