"""Other de-identification tools over a folder, for ``deid.py``: each as its own documentation has it.

Imports nothing of this package, so that the interpreter needs no more than
``pip install dicognito deid dicom-anonymizer pydicom``.

    python -I benchmarks/deid_peers.py dicognito|deid|deid_strip|dicom_anonymizer IN OUT

Last line: CPU time of the loop (user and system, without imports) and how many files failed, as JSON.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

Tool = Callable[[Path, Path], object]


def dicognito() -> Tool:
    """One Anonymizer for all files, as its documentation asks for files of one patient."""
    import pydicom  # noqa: PLC0415
    from dicognito.anonymizer import Anonymizer  # noqa: PLC0415

    anonymizer = Anonymizer(seed="a seed for tests only")

    def clean(source: Path, target: Path) -> None:
        with pydicom.dcmread(source) as ds:
            anonymizer.anonymize(ds)
            ds.save_as(target)

    return clean


def deid(*, strip: bool) -> Tool:
    """The recipe it ships, private elements removed; ``strip`` removes all sequences too."""
    os.environ["MESSAGELEVEL"] = "QUIET"
    from deid.config import DeidRecipe  # noqa: PLC0415
    from deid.dicom import replace_identifiers  # noqa: PLC0415

    recipe = DeidRecipe()

    def clean(source: Path, target: Path) -> None:
        made = replace_identifiers(str(source), deid=recipe, save=False, remove_private=True, strip_sequences=strip)
        made[0].save_as(target)

    return clean


def dicom_anonymizer() -> Tool:
    """Its default rules."""
    from dicomanonymizer.simpledicomanonymizer import anonymize_dicom_file  # noqa: PLC0415

    return lambda source, target: anonymize_dicom_file(str(source), str(target))


TOOLS: dict[str, Callable[[], Tool]] = {
    "dicognito": dicognito,
    "deid": lambda: deid(strip=False),
    "deid_strip": lambda: deid(strip=True),
    "dicom_anonymizer": dicom_anonymizer,
}


def main() -> None:
    name, source, target = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    tool = TOOLS[name]()
    files = sorted(source.iterdir())
    failed = 0
    start = time.process_time()
    for path in files:
        try:
            tool(path, target / path.name)
        except Exception:  # noqa: BLE001  # a tool that fails on a file fails on that file alone
            failed += 1
    print(json.dumps({"cpu_s": time.process_time() - start, "files": len(files), "failed": failed}))


if __name__ == "__main__":
    main()
