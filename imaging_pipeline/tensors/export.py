"""A frozen dataset version → files that other tools read: a folder, WebDataset tars, a Hugging Face dataset.

The same version and format give the same bytes, with the same releases of Pillow and pyarrow. Only what the research
lake holds goes out: research keys, pseudonyms, and groups that the profile keeps.
"""

from __future__ import annotations

import csv
import enum
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.objects.writing import write_atomically
from imaging_pipeline.tensors.datasheet import Groups, datasheet
from imaging_pipeline.tensors.frozen import VersionLost, VersionRecord
from imaging_pipeline.tensors.shards import ShardReader
from imaging_pipeline.tensors.splits import Split
from imaging_pipeline.tensors.versions import DatasetVersion, Member, OpenShard

RECORD: Final = "dataset.json"
"""File that says which version and format an export is."""

FILE_BYTES: Final = 256_000_000
"""Tars and Parquet files are closed when they are this large (bytes)."""

ROWS_PER_GROUP: Final = 256
"""Rows of a Parquet row group: what a reader holds at a time."""

EXPORTED_GROUPS: Final = ("sex", "age", "view", "manufacturer")
"""What is told of an image besides its label."""

FIELDS: Final = ("split", "label", "patient", "tensor_key", "tensor_sha256", *EXPORTED_GROUPS)


class ExportFormat(enum.StrEnum):
    """FOLDER: a file for each image, by side; WEBDATASET: tars; HUGGINGFACE: Parquet and a dataset card."""

    FOLDER = "folder"
    WEBDATASET = "webdataset"
    HUGGINGFACE = "huggingface"


@dataclass(frozen=True, slots=True)
class Example:
    """One image as it goes out: its key, its bytes as a PNG or NumPy file, and what is told of it."""

    key: str
    suffix: str
    data: bytes
    fields: dict[str, str | float]


def export_version(
    version: DatasetVersion, record: VersionRecord, groups: Groups, out: Path, form: ExportFormat, open_shard: OpenShard
) -> bool:
    """Write a version into a folder that is new or empty; there is all of it, or nothing.

    Images of whole numbers with one channel, and of bytes with three, become PNG; others and volumes NumPy files.

    Args:
        version: loaded from the lake.
        record: its provenance.
        groups: what is known of its images.
        out: the folder.
        form: its layout.
        open_shard: opens a shard by its URI.

    Returns:
        Whether anything was written; False: the folder holds this export already.

    Raises:
        ConfigurationError: the folder holds something else.
        VersionLost: a tensor has other bytes than it had.
        ShardError: a shard is missing or damaged.
    """
    about = {
        "dataset_id": version.dataset_id,
        "version": version.version,
        "manifest_sha256": version.manifest_sha256,
        "images": {side: images for side, _, images, _ in version.counts()},
        "format": str(form),
    }
    text = json.dumps(about, indent=1, sort_keys=True) + "\n"
    if _holds(out, text):
        return False
    staging = out.with_name(f".{out.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    _WRITERS[form](staging, _Examples(version, groups, open_shard))
    card = _card(record) if form is ExportFormat.HUGGINGFACE else ""
    write_atomically(staging / "README.md", (card + datasheet(version, record, groups)).encode())
    write_atomically(staging / RECORD, text.encode())
    staging.replace(out)
    return True


def _holds(out: Path, text: str) -> bool:
    """Whether a folder holds this export already."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if (out / RECORD).is_file() and (out / RECORD).read_text("utf-8") == text:
        return True
    raise ConfigurationError("the output folder is not empty and holds something else: name a new one")


class _Examples:
    """The images of each side in the order of their keys."""

    def __init__(self, version: DatasetVersion, groups: Groups, open_shard: OpenShard) -> None:
        self._version, self._groups, self._open = version, groups, open_shard
        self._readers: dict[str, ShardReader] = {}

    def of(self, side: Split) -> Iterator[Example]:
        for member in self._version.side(side):
            tensor = self._tensor(member)
            suffix, data = encoded(tensor)
            known = self._groups.get(member.subject_key, {})
            fields: dict[str, str | float] = {
                "split": str(side),
                "label": member.label,
                "patient": member.patient,
                "tensor_key": member.tensor_key,
                "tensor_sha256": member.tensor_sha256,
            }
            yield Example(member.tensor_key, suffix, data, fields | {g: known.get(g, "") for g in EXPORTED_GROUPS})

    def _tensor(self, member: Member) -> npt.NDArray[Any]:
        if member.shard not in self._readers:
            self._readers[member.shard] = self._open(member.shard)
        tensor = self._readers[member.shard].tensor(member.row)
        if hashlib.sha256(tensor.tobytes()).hexdigest() != member.tensor_sha256:
            raise VersionLost(f"tensor {member.tensor_key} has other bytes than it had: run its batch again")
        return tensor


def encoded(tensor: npt.NDArray[Any]) -> tuple[str, bytes]:
    """File suffix and bytes of a tensor: PNG where that loses nothing, else a NumPy file."""
    stream = io.BytesIO()
    channels = tensor.shape[0] if tensor.ndim == 3 else 0
    if channels == 1 and tensor.dtype in (np.uint8, np.uint16):
        Image.fromarray(tensor[0]).save(stream, "PNG")
    elif channels == 3 and tensor.dtype == np.uint8:
        Image.fromarray(np.ascontiguousarray(tensor.transpose(1, 2, 0))).save(stream, "PNG")
    else:
        np.lib.format.write_array(stream, np.ascontiguousarray(tensor), version=(1, 0), allow_pickle=False)
        return "npy", stream.getvalue()
    return "png", stream.getvalue()


def _write_folder(out: Path, examples: _Examples) -> None:
    with (out / "metadata.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, ("file_name", *FIELDS), lineterminator="\n")
        writer.writeheader()
        for side in Split:
            (out / side).mkdir()
            for example in examples.of(side):
                name = f"{side}/{example.key}.{example.suffix}"
                (out / name).write_bytes(example.data)
                writer.writerow({"file_name": name} | example.fields)


def _write_webdataset(out: Path, examples: _Examples) -> None:
    for side in Split:
        for number, part in _parts(examples.of(side)):
            with tarfile.open(out / f"{side}-{number:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
                for example in part:
                    note = json.dumps(example.fields, sort_keys=True).encode()
                    for suffix, data in ((example.suffix, example.data), ("json", note)):
                        entry = tarfile.TarInfo(f"{example.key}.{suffix}")  # no time, no owner
                        entry.size = len(data)
                        tar.addfile(entry, io.BytesIO(data))


def _parts(examples: Iterator[Example]) -> Iterator[tuple[int, Iterator[Example]]]:
    """The examples of each file, by its number."""
    written = 0

    def number(example: Example) -> int:
        nonlocal written
        written += len(example.data)
        return written // FILE_BYTES

    return ((position, part) for position, (_, part) in enumerate(groupby(examples, number)))


_HUGGINGFACE_SIDES: Final = {Split.TRAIN: "train", Split.VAL: "validation", Split.TEST: "test"}


def _write_huggingface(out: Path, examples: _Examples) -> None:
    (out / "data").mkdir()
    for side, name in _HUGGINGFACE_SIDES.items():
        for number, part in _parts(examples.of(side)):
            _write_parquet(out / "data" / f"{name}-{number:05d}.parquet", part)


def _write_parquet(path: Path, part: Iterator[Example]) -> None:
    group = list(islice(part, ROWS_PER_GROUP))
    schema = _parquet_schema(is_picture=group[0].suffix == "png")
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while group:
            writer.write_table(_parquet_table(group, schema))
            group = list(islice(part, ROWS_PER_GROUP))


def _parquet_schema(*, is_picture: bool) -> pa.Schema:
    """Columns, and what Hugging Face's ``datasets`` must know of them."""
    column = "image" if is_picture else "tensor"
    stored = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if is_picture else pa.binary()
    texts = [name for name in FIELDS if name != "label"]
    features: dict[str, object] = {column: {"_type": "Image"} if is_picture else {"_type": "Value", "dtype": "binary"}}
    features |= {"label": {"_type": "Value", "dtype": "float32"}}
    features |= {name: {"_type": "Value", "dtype": "string"} for name in texts}
    return pa.schema(
        [(column, stored), ("label", pa.float32()), *((name, pa.string()) for name in texts)],
        metadata={"huggingface": json.dumps({"info": {"features": features}}, sort_keys=True)},
    )


def _parquet_table(group: Sequence[Example], schema: pa.Schema) -> pa.Table:
    images = [
        {"bytes": each.data, "path": f"{each.key}.{each.suffix}"} if each.suffix == "png" else each.data
        for each in group
    ]
    fields = {name: [each.fields[name] for each in group] for name in schema.names[1:]}
    return pa.table({schema.names[0]: images} | fields, schema=schema)


def _card(record: VersionRecord) -> str:
    """The YAML head of a dataset card."""
    licence = record.definition.licence
    lines = ["---", "license: other" if licence else "license: unknown"]
    lines += [f"license_name: {json.dumps(licence)}"] if licence else []
    lines += [f"pretty_name: {json.dumps(f'{record.dataset_id} {record.version}')}", "configs:"]
    lines += ["- config_name: default", "  data_files:"]
    for name in _HUGGINGFACE_SIDES.values():
        lines += [f"  - split: {name}", f"    path: data/{name}-*.parquet"]
    return "\n".join([*lines, "---", "", ""])


_WRITERS: Final[dict[ExportFormat, Callable[[Path, _Examples], None]]] = {
    ExportFormat.FOLDER: _write_folder,
    ExportFormat.WEBDATASET: _write_webdataset,
    ExportFormat.HUGGINGFACE: _write_huggingface,
}
