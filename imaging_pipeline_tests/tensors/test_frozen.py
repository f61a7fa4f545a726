"""Frozen versions are had again bit by bit from their snapshot, and say so when they cannot."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.lake.store import attach
from imaging_pipeline.objects.folder import uri_to_path
from imaging_pipeline.settings import Settings
from imaging_pipeline.tensors.candidates import groups_of
from imaging_pipeline.tensors.datasheet import datasheet, write_datasheet
from imaging_pipeline.tensors.export import ExportFormat, encoded, export_version
from imaging_pipeline.tensors.frozen import VersionLost, find_version, known_versions, load_version, rebuild_version
from imaging_pipeline.tensors.shards import ShardError
from imaging_pipeline.tensors.storage import ShardStore, open_shard
from imaging_pipeline.tensors.versions import DatasetVersion
from imaging_pipeline.tensors.withdrawal import withdraw_tensors
from imaging_pipeline_tests.conftest import environment
from imaging_pipeline_tests.tensors.labelled import DEFINITION, PLAN, Labelled, picture

IMAGES = 12


@pytest.fixture(scope="module")
def frozen_lake(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Path, DatasetVersion]:
    """A lake with one version, and what it looked like when it was frozen; copied for each test that changes it."""
    home = tmp_path_factory.mktemp("frozen")
    settings = Settings.from_environment(environment(home))
    with duckdb.connect() as connection:
        labelled = Labelled(attach(connection, settings.research), home / "shards")
        for number in range(IMAGES):
            labelled.add(
                f"i{number:02}", f"p{number // 2}", images=2, label=float(number % 3 == 0), sex="FM"[number % 2]
            )
        labelled.add("twin", array=picture("i00", labelled.recipe))
        frozen = labelled.freeze(replace(DEFINITION, licence="CC BY 4.0 | a|b", split=replace(PLAN, stratify=("sex",))))
    return settings, home, replace(frozen, is_new=False)


@pytest.fixture
def labelled(frozen_lake: tuple[Settings, Path, DatasetVersion]) -> Labelled:
    settings, home, _ = frozen_lake
    connection = duckdb.connect()
    return Labelled(attach(connection, settings.research), home / "shards")


@pytest.fixture
def frozen(frozen_lake: tuple[Settings, Path, DatasetVersion]) -> DatasetVersion:
    return frozen_lake[2]


def export(labelled: Labelled, out: Path, form: ExportFormat) -> bool:
    version = load_version(labelled.lake, "small")
    groups = groups_of(labelled.lake, [member.subject_key for member in version.members])
    return export_version(version, find_version(labelled.lake, "small"), groups, out, form, open_shard)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_version_is_found_by_its_digits_or_by_its_name(labelled: Labelled, frozen: DatasetVersion) -> None:
    for name in (frozen.version[:5], "small", frozen.dataset_id):
        assert load_version(labelled.lake, name) == frozen
    assert [row[:3] for row in known_versions(labelled.lake)][-1:] == [
        (frozen.dataset_id, frozen.version, len(frozen.members))
    ]
    with pytest.raises(ConfigurationError, match="dataset list"):
        find_version(labelled.lake, "nothing")


def test_the_datasheet_counts_patients_and_hides_small_cells(
    labelled: Labelled, frozen: DatasetVersion, settings: Settings
) -> None:
    text = write_datasheet(labelled.lake, frozen, settings).read_text("utf-8")
    assert "CC BY 4.0 \\| a\\|b" in text
    assert "| val | &lt;5 | &lt;5 |" in text
    assert "small-chest-xray-224" in text
    assert not any(member.patient in text for member in frozen.members if member.patient != "p")
    record, groups = (
        find_version(labelled.lake, "small"),
        groups_of(labelled.lake, [m.subject_key for m in frozen.members]),
    )
    assert datasheet(frozen, record, groups) == text
    assert next(settings.home.rglob("datasheet.md")).parent.name == frozen.version


def test_a_folder_holds_each_image_as_it_was(labelled: Labelled, frozen: DatasetVersion, tmp_path: Path) -> None:
    assert export(labelled, tmp_path / "out", ExportFormat.FOLDER)
    rows = list(csv.DictReader((tmp_path / "out" / "metadata.csv").open()))
    assert {row["tensor_key"]: (row["split"], float(row["label"])) for row in rows} == {
        member.tensor_key: (str(member.split), member.label) for member in frozen.members
    }
    for row in rows:
        with Image.open(tmp_path / "out" / row["file_name"]) as image:
            expected = picture("i00" if row["tensor_key"] == "twin" else row["tensor_key"], labelled.recipe)
            assert np.array_equal(np.asarray(image), expected[0])
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["manifest_sha256"] == frozen.manifest_sha256


def test_tars_hold_pairs_in_the_order_webdataset_wants(
    labelled: Labelled, frozen: DatasetVersion, tmp_path: Path
) -> None:
    export(labelled, tmp_path / "out", ExportFormat.WEBDATASET)
    seen = []
    for path in sorted((tmp_path / "out").glob("*.tar")):
        with tarfile.open(path) as tar:
            names = tar.getnames()
            assert [name.partition(".")[0] for name in names[::2]] == [name.partition(".")[0] for name in names[1::2]]
            assert all((entry.mtime, entry.uid) == (0, 0) for entry in tar)
            for name in names[1::2]:
                stream = tar.extractfile(name)
                assert stream is not None
                seen.append((json.load(stream)["split"], path.name))
    assert len(seen) == len(frozen.members)
    assert all(name == f"{side}-000000.tar" for side, name in seen)


def test_parquet_files_say_what_they_hold(labelled: Labelled, frozen: DatasetVersion, tmp_path: Path) -> None:
    export(labelled, tmp_path / "out", ExportFormat.HUGGINGFACE)
    tables = {path.name: pq.read_table(path) for path in (tmp_path / "out" / "data").glob("*.parquet")}
    assert {name.partition("-")[0] for name in tables} <= {"train", "validation", "test"}
    assert sum(table.num_rows for table in tables.values()) == len(frozen.members)
    table = tables["train-00000.parquet"]
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert set(features) == set(table.column_names)
    row = table.slice(0, 1).to_pylist()[0]
    with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
        assert np.asarray(image).shape == labelled.recipe.shape[1:]
    assert 'license_name: "CC BY 4.0 | a|b"' in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("form", list(ExportFormat))
def test_an_export_is_the_same_bytes_and_whole_or_not_there(
    labelled: Labelled, form: ExportFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("imaging_pipeline.tensors.export.encoded", _failing_after(5))
        with pytest.raises(OSError, match="full"):
            export(labelled, out, form)
    assert not out.exists()
    assert export(labelled, out, form)
    assert not export(labelled, out, form), "it is there already"
    assert export(labelled, tmp_path / "again", form)
    assert bytes_of(out) == bytes_of(tmp_path / "again")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    (out / "dataset.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="something else"):
        export(labelled, out, form)


def _failing_after(count: int) -> object:
    left = iter(range(count))

    def fail(tensor: np.ndarray) -> tuple[str, bytes]:
        if next(left, None) is None:
            raise OSError("the disk is full")
        return encoded(tensor)

    return fail


@pytest.mark.parametrize(
    ("shape", "dtype", "suffix"),
    [((1, 4, 5), "uint8", "png"), ((1, 4, 5), "uint16", "png"), ((3, 4, 5), "uint8", "png"),
     ((3, 4, 5), "uint16", "npy"), ((1, 4, 5), "float32", "npy"), ((1, 2, 4, 5), "uint8", "npy")],
)  # fmt: skip
def test_every_kind_of_tensor_is_exported_without_loss(shape: tuple[int, ...], dtype: str, suffix: str) -> None:
    tensor = (np.random.default_rng(1).random(shape) * 60_000).astype(dtype)
    found, data = encoded(tensor)
    assert found == suffix
    if suffix == "npy":
        again = np.load(io.BytesIO(data), allow_pickle=False)
    else:
        with Image.open(io.BytesIO(data)) as image:
            pixels = np.asarray(image)
        again = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    assert again.dtype == tensor.dtype
    assert np.array_equal(again, tensor)


# From here on the lake changes.


def test_a_version_is_rebuilt_after_labels_and_images_were_added_and_changed(
    labelled: Labelled, frozen: DatasetVersion
) -> None:
    labelled.add("new", label=1.0)
    labelled.put_label("i01", 1.0)
    labelled.settle("p3", 1, "OPEN")
    labelled.flush()
    assert rebuild_version(labelled.lake, frozen.version, open_shard) == frozen
    assert load_version(labelled.lake, frozen.version) == frozen
    newer = labelled.freeze(find_version(labelled.lake, frozen.version).definition)
    assert newer.version != frozen.version
    before = {member.patient: member.split for member in frozen.members}
    assert all(before.get(member.patient, member.split) is member.split for member in newer.members)


def test_tensors_that_were_changed_in_their_shard_are_noticed(
    labelled: Labelled, frozen: DatasetVersion, tmp_path: Path
) -> None:
    path = uri_to_path(frozen.members[0].shard)
    whole = path.read_bytes()
    try:
        pixels = picture(frozen.members[0].tensor_key, labelled.recipe).tobytes()
        assert pixels in whole
        path.write_bytes(whole.replace(pixels, pixels[:-1] + bytes([pixels[-1] ^ 1])))
        with pytest.raises(VersionLost, match="run its batch again"):
            rebuild_version(labelled.lake, frozen.version, open_shard)
        with pytest.raises(VersionLost, match="run its batch again"):
            export_version(frozen, find_version(labelled.lake, frozen.version), {}, tmp_path / "out",
                           ExportFormat.FOLDER, open_shard)  # fmt: skip
        assert not (tmp_path / "out").exists()
        path.unlink()
        with pytest.raises(ShardError):
            rebuild_version(labelled.lake, frozen.version, open_shard)
    finally:
        path.write_bytes(whole)


def test_a_version_that_lost_an_image_to_a_withdrawal_says_so(labelled: Labelled, frozen: DatasetVersion) -> None:
    withdraw_tensors(labelled.lake, {"i04"}, ShardStore(""))
    for lost in (load_version, lambda lake, name: rebuild_version(lake, name, open_shard)):
        with pytest.raises(VersionLost, match=r"1 of the 1[23] images .* taken back"):
            lost(labelled.lake, frozen.version)


def test_a_version_without_its_snapshot_says_so(labelled: Labelled, frozen: DatasetVersion) -> None:
    labelled.lake.connection.execute(f"CALL ducklake_expire_snapshots('research', versions => [{frozen.snapshot_id}])")
    with pytest.raises(ConfigurationError, match="expired"):
        load_version(labelled.lake, frozen.version)
