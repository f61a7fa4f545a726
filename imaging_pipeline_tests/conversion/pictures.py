"""Picture files made for the tests."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROWS, COLUMNS = 48, 64


def grey(bits: int = 8, rows: int = ROWS, columns: int = COLUMNS, seed: int = 0) -> np.ndarray[Any, Any]:
    """A picture with all kinds of values, (rows, columns), uint8 or uint16."""
    noise = np.random.default_rng(seed).integers(0, 2**bits, (rows, columns))
    ramp = np.linspace(0, 2**bits - 1, columns)[None, :]
    return (0.9 * ramp + 0.1 * noise).astype(np.uint8 if bits == 8 else np.uint16)


def colour(rows: int = ROWS, columns: int = COLUMNS) -> np.ndarray[Any, Any]:
    """A picture in colour, (rows, columns, 3)."""
    return np.stack(
        [
            grey(rows=rows, columns=columns),
            grey(rows=rows, columns=columns)[::-1],
            255 - grey(rows=rows, columns=columns),
        ],
        axis=-1,
    )


def encoded(image: np.ndarray[Any, Any] | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """A picture as a file."""
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def put(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files below a folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder
