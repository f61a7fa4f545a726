"""What stays released and what goes: outages, versions of one UID in several batches, runs at the same time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from imaging_pipeline.catalog import bronze
from imaging_pipeline.catalog.bronze import load_bronze
from imaging_pipeline.deid import release
from imaging_pipeline.deid.profile import Profile, load_profile
from imaging_pipeline.deid.release import ReleaseCounts, Releaser, ReleaseRefused, release_batch
from imaging_pipeline.deid.targets import keys_of_batch, plan_of
from imaging_pipeline.errors import TransientError
from imaging_pipeline.metadata.quality import count_violations
from imaging_pipeline.metadata.silver import VersionPolicy, load_silver
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.tensors import batch as tensor_batch
from imaging_pipeline.tensors.batch import TensorCounts, load_tensors
from imaging_pipeline.tensors.recipe import Recipe, load_recipe
from imaging_pipeline.tensors.shards import ShardReader
from imaging_pipeline.tensors.storage import ShardStore
from imaging_pipeline.tensors.withdrawal import withdraw_tensors
from imaging_pipeline_tests.conftest import folder
from imaging_pipeline_tests.deid.corpus import ROOT, chest_film, encode, keys
from imaging_pipeline_tests.deid.test_release import FIRST, SECOND, Zones
from imaging_pipeline_tests.metadata.headers import memory_lake

THIRD = "2026-01-31.00003"
ONE, TWO, THREE = ({"PatientID": f"MRN-{digit * 7}"} for digit in "123")
ISSUES = "SELECT object_key, issue_code FROM bronze.ingest_issue WHERE stage = 'DEID' ORDER BY issue_code"
HELD = {"BurnedInAnnotation": "YES"}


def go_on(steps: Iterator[object] | None) -> None:
    if steps is not None:
        next(steps, None)


class Chain(Zones):
    """The zones, and tensors made from them as the assets do."""

    def recipe(self) -> Recipe:
        return load_recipe("chest-xray-224")

    def shards(self) -> ShardStore:
        return ShardStore(str(self.folder / "tensors"))

    def patients(self) -> list[str]:
        """Research Patient IDs of what is released."""
        return [str(patient) for (patient,) in self.research.rows("SELECT patient_id FROM deid.dicom_patient")]

    def lose(self, batch_id: str, *names: str) -> None:
        """Originals that cannot be read, though the catalog has them."""
        for name in names:
            (self.folder / "landing" / batch_id / f"{name}.dcm").unlink()

    def release_again(
        self, batch_id: str, profile: Profile | None = None, meanwhile: Iterator[object] | None = None
    ) -> ReleaseCounts:
        """Release a batch; ``meanwhile`` goes one step on after files were made and before rows are written."""
        releaser = Releaser(profile or load_profile(), keys(), ObjectReader(), self.folder / "files", batch_id)
        about = keys_of_batch(self.identified, self.research, keys(), batch_id)
        try:
            return release_batch(
                self.identified,
                self.research,
                self.vault,
                releaser,
                workers=1,
                progress=lambda *_: go_on(meanwhile),
            )
        finally:
            withdraw_tensors(self.research, about, self.shards())

    def make_tensors(
        self, batch_id: str, recipe: Recipe | None = None, meanwhile: Iterator[object] | None = None
    ) -> TensorCounts:
        return load_tensors(
            self.research,
            batch_id,
            [recipe or self.recipe()],
            self.shards(),
            workers=1,
            progress=lambda *_: go_on(meanwhile),
        )

    def tensors(self) -> int:
        ((count,),) = self.research.rows("SELECT count(*) FROM gold.image_tensor")
        return int(str(count))

    def instances_in_shards(self) -> list[str]:
        shards = (self.folder / "tensors").rglob("*.arrow")
        return sorted(key for path in shards for key in ShardReader(path).column("instance_key"))

    def is_as_silver_says(self) -> bool:
        """Every current content is released, nothing else is, and files and rows are the same."""
        plans = [plan_of(self.identified, self.research, keys(), batch) for batch in (FIRST, SECOND, THIRD)]
        held = [key for key, _ in self.identified.rows(ISSUES)]
        wanted = {
            (key, target.source_token)
            for plan in plans
            for key, target in plan.current.items()
            if target.version.key not in held
        }
        found = self.research.rows("SELECT instance_key, source_token FROM deid.deid_verification")
        return (
            sorted(wanted) == sorted(found)
            and self.rows("dicom_instance") == len(wanted)
            and self.files() == self.named_files()
            and not count_violations(self.research, "deid")
        )


@pytest.fixture(autouse=True)
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects are worked on in this process: many runs in a short time."""
    for module in (bronze, release, tensor_batch):
        monkeypatch.setattr(module, "map_chunks", lambda function, items, **_: map(function, [items] if items else []))


@pytest.fixture
def zones(tmp_path: Path) -> Iterator[Chain]:
    with memory_lake("identified") as identified, memory_lake("research") as research:
        yield Chain(tmp_path, identified, research)


def several(number: int) -> dict[str, dict[str, object]]:
    """Chest films of one study, by name."""
    return {f"f{n}": {"SOPInstanceUID": f"{ROOT}.3.{n}", "BodyPartExamined": "CHEST"} for n in range(number)}


def issues(zones: Zones) -> list[str]:
    return [str(code) for _, code in zones.identified.rows(ISSUES)]


def test_an_original_that_cannot_be_read_keeps_what_is_released_of_it(zones: Chain) -> None:
    zones.take_in(FIRST, **several(3))
    zones.make_tensors(FIRST)
    proofs, files = zones.research.rows("SELECT * EXCLUDE (_loaded_at) FROM deid.deid_verification"), zones.files()
    zones.lose(FIRST, "f0")
    counts = zones.release_again(FIRST)
    assert (counts.instances, counts.released, counts.held, counts.unreached) == (3, 3, 0, 1)
    assert sorted(zones.research.rows("SELECT * EXCLUDE (_loaded_at) FROM deid.deid_verification")) == sorted(proofs)
    assert (zones.files(), zones.tensors(), issues(zones)) == (files, 3, [])
    assert zones.told() == [("create", "current")] * 3
    assert zones.closes(FIRST)


def test_an_original_that_cannot_be_read_is_held_when_it_would_be_released_otherwise_now(zones: Chain) -> None:
    zones.take_in(FIRST, **several(3))
    zones.make_tensors(FIRST)
    zones.lose(FIRST, "f0")
    stricter = replace(load_profile(), earliest_date=date(2025, 12, 31))
    counts = zones.release_again(FIRST, stricter)
    assert (counts.instances, counts.released, counts.held, counts.unreached) == (3, 2, 1, 1)
    assert (issues(zones), zones.tensors()) == (["gone"], 0)
    assert zones.files() == zones.named_files()
    assert len(zones.files()) == 2
    assert zones.closes(FIRST)


def test_an_outage_takes_back_what_was_deleted_and_nothing_else(zones: Chain) -> None:
    zones.take_in(FIRST, **several(4))
    zones.make_tensors(FIRST)
    zones.lose(FIRST, "f1", "f2", "f3")
    with pytest.raises(TransientError, match="3 of 3 originals"):
        zones.vanish(FIRST, "f0")
    with pytest.raises(TransientError, match="3 of 3 originals"):
        zones.release_again(FIRST)
    assert (zones.rows("dicom_instance"), zones.tensors(), issues(zones)) == (3, 3, [])
    assert zones.files() == zones.named_files()
    assert zones.is_as_silver_says()


def test_a_refused_batch_takes_back_what_was_deleted_and_writes_nothing(
    zones: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    zones.take_in(FIRST, **several(2))
    zones.make_tensors(FIRST)
    files = zones.files()
    monkeypatch.setattr(release, "count_leaks", lambda *_: {"dicom_study.study_description": 1})
    with pytest.raises(ReleaseRefused):
        zones.vanish(FIRST, "f0")
    with pytest.raises(ReleaseRefused):
        zones.release_again(FIRST)
    assert (zones.rows("dicom_instance"), zones.tensors()) == (1, 1)
    assert zones.files() == zones.named_files() < files
    with pytest.raises(ReleaseRefused):
        zones.take_in(SECOND, f1=several(2)["f1"] | ONE)
    assert zones.files() == zones.named_files() == set()
    assert zones.rows("dicom_patient") == 0


def test_what_was_deleted_is_gone_before_anything_is_made(zones: Chain) -> None:
    zones.take_in(FIRST, **several(2))

    def killed() -> Iterator[object]:
        assert zones.rows("deid_verification") == zones.rows("dicom_instance") == 1
        assert zones.told()[-1] == ("delete", "deleted")
        yield None
        raise KeyboardInterrupt

    moment = datetime(2026, 2, 1)  # noqa: DTZ001 - the lake's times are naive UTC
    zones.identified.connection.execute(
        "UPDATE identified.bronze.object_catalog SET deleted_at = ? WHERE storage_uri LIKE '%f0.dcm'", [moment]
    )
    load_silver(zones.identified, FIRST)
    seen = killed()
    zones.release_again(FIRST, meanwhile=seen)
    with pytest.raises(KeyboardInterrupt):
        zones.release_again(FIRST, meanwhile=seen)
    assert zones.is_as_silver_says()


def test_versions_deleted_one_after_the_other_leave_the_one_that_is_left(zones: Chain) -> None:
    zones.take_in(FIRST, film=ONE)
    zones.take_in(SECOND, film=TWO)
    zones.take_in(THIRD, film=THREE)
    zones.vanish(THIRD)
    assert zones.patients() == [keys().patient_id("north", "MRN-2222222")]
    zones.vanish(SECOND)
    assert zones.patients() == [keys().patient_id("north", "MRN-1111111")]
    assert zones.is_as_silver_says()
    assert zones.closes(FIRST)
    assert zones.closes(SECOND)


def test_the_first_content_is_released_though_its_batch_runs_last(zones: Chain) -> None:
    first = VersionPolicy.KEEP_FIRST
    zones.take_in(SECOND, policy=first, film=TWO)
    zones.take_in(FIRST, policy=first, film=ONE)
    assert zones.patients() == [keys().patient_id("north", "MRN-1111111")]
    zones.vanish(SECOND, policy=first)
    assert zones.patients() == [keys().patient_id("north", "MRN-1111111")]
    assert zones.is_as_silver_says()


def test_a_copy_of_another_source_is_released_under_its_own_patient(zones: Chain) -> None:
    zones.take_in(FIRST, source="north", film={})
    zones.take_in(SECOND, source="south", film={})
    south = zones.patients()
    zones.vanish(SECOND)
    assert zones.patients() != south
    assert zones.is_as_silver_says()


def test_what_was_released_of_another_content_does_not_count_as_released(zones: Chain) -> None:
    zones.take_in(FIRST, film={})
    assert zones.closes(FIRST)
    zones.research.connection.execute("UPDATE research.deid.deid_verification SET source_token = '2.25.1'")
    assert not zones.closes(FIRST)


def test_a_token_tells_nothing_of_the_original(zones: Chain) -> None:
    zones.take_in(FIRST, film={})
    ((sha256,),) = zones.identified.rows("SELECT sha256 FROM bronze.object_catalog")
    ((token,),) = zones.research.rows("SELECT source_token FROM deid.deid_verification")
    assert str(sha256) not in str(token)
    plans = [plan_of(zones.identified, zones.research, keys(name), FIRST) for name in ("chest", "other")]
    tokens = {target.source_token for plan in plans for target in plan.current.values()}
    assert len(tokens) == 2
    assert token in tokens


def test_a_run_writes_nothing_that_another_batch_has_replaced_meanwhile(zones: Chain) -> None:
    zones.take_in(FIRST, film=ONE)

    def another_batch() -> Iterator[object]:
        yield zones.take_in(SECOND, film=TWO)

    counts = zones.release_again(FIRST, meanwhile=another_batch())
    assert (counts.instances, counts.released, counts.held) == (0, 0, 0)
    assert zones.patients() == [keys().patient_id("north", "MRN-2222222")]
    assert zones.is_as_silver_says()


def test_a_run_writes_nothing_that_another_batch_has_withdrawn_meanwhile(zones: Chain) -> None:
    zones.take_in(FIRST, **several(2))

    def another_batch() -> Iterator[object]:
        yield zones.take_in(SECOND, f0=several(2)["f0"] | HELD)

    counts = zones.release_again(FIRST, meanwhile=another_batch())
    assert (counts.instances, counts.released, counts.held) == (1, 1, 0)
    assert zones.rows("deid_verification") == zones.rows("dicom_instance") == 1
    assert zones.files() == zones.named_files()
    assert issues(zones) == ["pixel_review_required"]


def test_files_of_a_run_that_was_killed_go_with_the_next_one(zones: Chain) -> None:
    zones.take_in(FIRST, film=ONE)
    left = zones.folder / "files" / ".staging" / FIRST / "left.dcm"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"made before the kill")
    zones.vanish(FIRST)
    assert zones.files() == set()


def test_a_tensor_of_an_image_that_is_taken_back_meanwhile_is_left_out(zones: Chain) -> None:
    zones.take_in(FIRST, **several(3))

    def another_batch() -> Iterator[object]:
        yield zones.take_in(SECOND, f0=several(3)["f0"] | HELD)

    counts = zones.make_tensors(FIRST, meanwhile=another_batch())
    assert (counts.selected, counts.built, counts.failed) == (2, 2, 0)
    proofs = zones.research.rows("SELECT instance_key FROM deid.deid_verification ORDER BY 1")
    assert zones.instances_in_shards() == [key for (key,) in proofs]
    rows = zones.research.rows("SELECT instance_key, tensor_uri, shard_row, mean_value FROM gold.image_tensor")
    for key, uri, row, mean in rows:
        reader = ShardReader(str(uri).removeprefix("file://"))
        assert reader.column("instance_key")[int(str(row))] == key
        assert reader.tensor(int(str(row))).mean() == pytest.approx(mean)
    assert len(rows) == 2


def test_no_shard_is_left_when_all_images_are_taken_back_meanwhile(zones: Chain) -> None:
    zones.take_in(FIRST, **several(1))

    def another_batch() -> Iterator[object]:
        yield zones.take_in(SECOND, f0=several(1)["f0"] | HELD)

    counts = zones.make_tensors(FIRST, meanwhile=another_batch())
    assert (counts.selected, counts.built, counts.shard_bytes, zones.tensors()) == (0, 0, 0, 0)
    assert zones.instances_in_shards() == []


def predict(zones: Chain) -> None:
    zones.research.connection.execute(
        """INSERT INTO research.gold.model_prediction BY NAME
        SELECT tensor_key AS prediction_key, instance_key, tensor_key, 'm' AS model_name, '1' AS model_version,
            arrival_batch FROM research.gold.image_tensor"""
    )


@pytest.mark.parametrize("correction", [{"BodyPartExamined": "HAND"}, {"WindowCenter": "3"}])
def test_tensors_of_all_recipes_go_with_the_content_they_were_made_from(
    zones: Chain, correction: dict[str, object]
) -> None:
    films = several(2)
    zones.take_in(FIRST, **films)
    older = replace(zones.recipe(), name="older")
    zones.make_tensors(FIRST, older)
    zones.make_tensors(FIRST)
    predict(zones)
    assert zones.tensors() == 4
    zones.take_in(SECOND, f0=films["f0"] | correction)
    zones.release_again(SECOND)
    ((kept,),) = zones.research.rows("SELECT instance_key FROM deid.deid_verification WHERE arrival_batch = ?", [FIRST])
    found = zones.research.rows("SELECT instance_key FROM gold.image_tensor")
    assert found == zones.research.rows("SELECT instance_key FROM gold.model_prediction") == [(kept,), (kept,)]
    assert zones.instances_in_shards() == [kept, kept]


def test_a_tensor_moves_with_its_instance_and_is_in_one_shard(zones: Chain) -> None:
    films = several(2)
    zones.take_in(FIRST, **films)
    zones.make_tensors(FIRST)
    zones.take_in(SECOND, f0=films["f0"])
    zones.release_again(SECOND)
    zones.make_tensors(SECOND)
    assert len(zones.instances_in_shards()) == zones.tensors() == 2
    assert zones.research.rows("SELECT DISTINCT arrival_batch FROM gold.image_tensor ORDER BY 1") == [
        (FIRST,),
        (SECOND,),
    ]


def test_a_kill_while_tensors_are_taken_back_is_mended_by_running_again(
    zones: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    zones.take_in(FIRST, **several(2))
    zones.make_tensors(FIRST)
    zones.vanish(FIRST, "f0")

    def killed_before_the_old_shard_goes(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ShardStore, "remove", killed_before_the_old_shard_goes)
        with pytest.raises(KeyboardInterrupt):
            zones.release_again(FIRST)
    assert zones.tensors() == 2
    zones.release_again(FIRST)
    assert len(zones.instances_in_shards()) == zones.tensors() == 1


class Batches:
    """Three batches with an object of one UID each, loaded, deleted and restored; their releases may be late."""

    def __init__(self, zones: Chain, policy: VersionPolicy, draw: random.Random) -> None:
        self.zones, self.policy, self.draw = zones, policy, draw
        self.unreleased: set[str] = set()
        self.is_there: dict[str, bool] = {}

    def change(self, batch_id: str) -> None:
        """Load the batch; after that, its object vanishes and comes back."""
        if batch_id in self.is_there:
            moment = datetime(2026, 2, 1) if self.is_there[batch_id] else None  # noqa: DTZ001 - naive UTC
            self.zones.identified.connection.execute(
                "UPDATE identified.bronze.object_catalog SET deleted_at = ? WHERE arrival_batch = ?", [moment, batch_id]
            )
            self.is_there[batch_id] = not self.is_there[batch_id]
        else:
            landing = self.zones.folder / "landing" / batch_id
            landing.mkdir(parents=True)
            attributes = self.draw.choice([ONE, ONE, TWO, THREE, HELD])
            (landing / "film.dcm").write_bytes(encode(chest_film(**attributes)))
            manifest = list(folder(landing, "north").list(datetime.now(UTC)))
            load_bronze(self.zones.identified, batch_id, manifest, ObjectReader(), run_id="run", workers=1)
            self.is_there[batch_id] = True
        load_silver(self.zones.identified, batch_id, self.policy)
        self.unreleased.add(batch_id)

    def release_one(self) -> None:
        batch_id = self.draw.choice(sorted(self.unreleased))
        self.unreleased.remove(batch_id)
        self.zones.release(batch_id)


@pytest.mark.parametrize("policy", list(VersionPolicy))
def test_whatever_the_order_of_runs_what_is_current_is_released_and_nothing_else(
    tmp_path: Path, policy: VersionPolicy
) -> None:
    for seed in range(2):
        draw = random.Random(f"{policy} {seed}")
        with memory_lake("identified") as identified, memory_lake("research") as research:
            zones = Chain(tmp_path / str(seed), identified, research)
            batches = Batches(zones, policy, draw)
            changes = draw.sample([FIRST, SECOND, THIRD] * 3, 6)
            while changes or batches.unreleased:
                if changes and (not batches.unreleased or draw.random() < 0.5):
                    batches.change(changes.pop())
                else:
                    batches.release_one()
            assert zones.is_as_silver_says(), seed
            for batch_id in batches.is_there:
                assert zones.closes(batch_id), seed
