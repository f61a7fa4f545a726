"""What dciodvfy (dicom3tools) calls an error in a file, in a form in which an input and its output can be compared."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from pydicom.dataset import Dataset

from imaging_pipeline.deid.iod import load_types

_VALUES = (
    re.compile(r"(?<= value )<[^<>]*>(?= for value )"),
    re.compile(r"(?<= = )<.*>(?= - )"),
    re.compile(r"(?<=UID )<?\d[0-9.]*>?"),
    re.compile(r"(?<![\w.])\d+(?:\.\d+){3,}|\b2\.25\.\d+"),
    re.compile(r"(?<= - )'[^']'(?= - only )"),
)
"""Where its messages quote values: defined terms, values of a wrong form, UIDs, letters of an orientation."""


def without_values(message: str) -> str:
    """A message with the object's values replaced by a mark; what is wrong in which attribute and module stays."""
    for pattern in _VALUES:
        message = pattern.sub("<value>", message)
    return message


def errors_of(path: Path) -> set[str]:
    """The errors dciodvfy finds in a file, without values."""
    done = subprocess.run(["dciodvfy", str(path)], check=False, capture_output=True, text=True, errors="replace")
    return {without_values(line) for line in (done.stderr + done.stdout).splitlines() if line.startswith("Error")}


def with_value(ds: Dataset, sop_class: str, sequence: str = "", path: str = "") -> set[str]:
    """Paths of the Type 1 attributes of the IOD's tables that have a value, without the numbers of items."""
    found = set()
    for elem in ds:
        name = f"{path}{elem.keyword}"
        if elem.VR == "SQ":
            for item in elem.value:
                found |= with_value(item, sop_class, elem.keyword, f"{name}.")
        if not elem.is_empty and load_types().type_of(elem.keyword, sop_class, sequence) == "1":
            found.add(name)
    return found
