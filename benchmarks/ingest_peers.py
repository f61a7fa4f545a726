"""The usual ways of taking headers in, for ``ingest.py``: pydicom in one process, and the same under PySpark.

Imports nothing of this package, so that the interpreter of the Spark side needs no more than
``pip install pyspark pandas pyarrow pydicom``.

    python benchmarks/ingest_peers.py pydicom|pyspark FOLDER HOME
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pydicom

COLUMNS = (
    "path",
    "sop_instance_uid",
    "series_instance_uid",
    "study_instance_uid",
    "patient_id",
    "modality",
    "header_json",
)
SCHEMA = ", ".join(f"{column} string" for column in COLUMNS)
WORKERS = 2


def row_of(path: str) -> tuple[str, ...]:
    ds = pydicom.dcmread(path, stop_before_pixels=True)
    document = json.dumps(ds.to_json_dict())
    uids = (str(ds.SOPInstanceUID), str(ds.SeriesInstanceUID), str(ds.StudyInstanceUID))
    return (path, *uids, str(ds.PatientID), str(ds.Modality), document)


def paths_in(folder: Path) -> list[str]:
    return sorted(os.path.join(root, name) for root, _, names in os.walk(folder) for name in names)  # noqa: PTH118


def with_pydicom(folder: Path, home: Path) -> int:
    frame = pd.DataFrame([row_of(path) for path in paths_in(folder)], columns=list(COLUMNS))
    frame.to_parquet(home / "headers.parquet")
    return len(frame)


def frames_of(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    for frame in frames:
        yield pd.DataFrame([row_of(path) for path in frame["path"]], columns=list(COLUMNS))


def with_pyspark(folder: Path, home: Path) -> int:
    from pyspark.sql import SparkSession  # noqa: PLC0415

    os.environ["PYSPARK_PYTHON"] = sys.executable
    spark = SparkSession.builder.master(f"local[{WORKERS}]").config("spark.ui.enabled", "false").getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    paths = spark.createDataFrame([(path,) for path in paths_in(folder)], "path string").repartition(4 * WORKERS)
    target = str(home / "headers.parquet")
    paths.mapInPandas(frames_of, SCHEMA).write.parquet(target)
    count = spark.read.parquet(target).count()
    spark.stop()
    return count


def main() -> None:
    name, folder, home = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    count = {"pydicom": with_pydicom, "pyspark": with_pyspark}[name](folder, home)
    print(json.dumps({"objects": count}))


if __name__ == "__main__":
    main()
