from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
import yaml

from imaging_pipeline.catalog.intake import cut
from imaging_pipeline.catalog.ledger import Batch, is_batch_id
from imaging_pipeline.definitions import build_defs
from imaging_pipeline.defs import intake, reporting
from imaging_pipeline.defs.automation import nightly_if_new, when_batch_is_ready
from imaging_pipeline.defs.partitions import arrival_batches
from imaging_pipeline.defs.reporting import asset_key
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.lake import registry
from imaging_pipeline.settings import Settings
from imaging_pipeline_tests.conftest import environment

ZONES = {"bronze", "silver", "deid", "gold", "model", "delivery"}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(Settings.from_environment(environment(tmp_path / "home", BATCH_OBJECTS="3", BATCHES_PER_TICK="2")))
    made.settings.landing.mkdir(parents=True)
    return made


@pytest.fixture
def definitions(workspace: Workspace) -> dg.Definitions:
    return build_defs(workspace)


def cut_all(workspace: Workspace, *, is_announced: bool) -> list[Batch]:
    """Take in what is in the landing folder, as a sensor does or a person."""
    now = datetime.now(UTC)
    (landing,) = workspace.settings.sources
    with workspace.ledger() as ledger:
        ledger.scan(workspace.source(landing), workspace.reader(), now=now)
        return cut(ledger, now, workspace.limits(), source=landing.name, is_announced=is_announced)


def drop(workspace: Workspace, *names: str) -> None:
    for name in names:
        (workspace.settings.landing / name).write_text("x")


def tick(
    workspace: Workspace, instance: dg.DagsterInstance, cursor: str | None = None
) -> dg.SensorResult | dg.SkipReason:
    context = dg.build_sensor_context(instance=instance, cursor=cursor, resources={"workspace": workspace})
    (landing,) = workspace.settings.sources
    result = intake.source_sensor(landing)(context)
    assert isinstance(result, dg.SensorResult | dg.SkipReason)
    return result


def test_the_code_location_is_loadable(definitions: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(definitions)


def test_each_table_of_the_registry_is_an_asset_with_schema_owner_and_description(definitions: dg.Definitions) -> None:
    specs = {spec.key: spec for spec in definitions.resolve_all_asset_specs()}
    own = {"ingest_issue"}  # in gold it is written along with the tensors, not an asset of its own
    for schema in registry.SCHEMA_LAKES:
        for table in registry.tables_of(schema):
            if schema == "gold" and table.name in own:
                continue
            spec = specs[asset_key(schema, table.name)]
            assert spec.description
            assert spec.owners
            assert spec.kinds
            assert spec.group_name in ZONES
            columns = spec.metadata["dagster/column_schema"].columns
            assert [column.name for column in columns] == [column.name for column in table.columns]


def test_phi_columns_are_tagged(definitions: dg.Definitions) -> None:
    specs = {spec.key: spec for spec in definitions.resolve_all_asset_specs()}
    columns = specs[asset_key("silver", "dicom_patient")].metadata["dagster/column_schema"].columns
    tags = {column.name: column.tags for column in columns}
    assert tags["patient_name"] == {"phi": "direct"}
    assert tags["patient_key"] == {}


def test_nothing_new_is_skipped_with_its_reason(workspace: Workspace, instance: dg.DagsterInstance) -> None:
    result = tick(workspace, instance)
    assert isinstance(result, dg.SkipReason)
    assert "nothing new" in str(result.skip_message)


def test_new_objects_become_batches_partitions_and_runs_a_bounded_number_a_tick(
    workspace: Workspace, instance: dg.DagsterInstance
) -> None:
    drop(workspace, *(f"f{n}" for n in range(8)))
    first = tick(workspace, instance)
    assert isinstance(first, dg.SensorResult)
    keys = [request.partition_key for request in first.run_requests or []]
    assert len(keys) == 2
    assert all(key and is_batch_id(key) for key in keys)
    assert [request.run_key for request in first.run_requests or []] == keys
    assert first.dynamic_partitions_requests
    assert list(first.dynamic_partitions_requests[0].partition_keys) == keys
    second = tick(workspace, instance, first.cursor)
    assert isinstance(second, dg.SensorResult)
    assert [request.tags["imaging/objects"] for request in second.run_requests or []] == ["2"]
    assert isinstance(tick(workspace, instance, second.cursor), dg.SkipReason)


def test_a_tick_that_was_lost_is_announced_again_with_the_same_run_keys(
    workspace: Workspace, instance: dg.DagsterInstance
) -> None:
    drop(workspace, "a", "b")
    lost, again = tick(workspace, instance), tick(workspace, instance)
    assert isinstance(lost, dg.SensorResult)
    assert isinstance(again, dg.SensorResult)
    assert [r.run_key for r in lost.run_requests or []] == [r.run_key for r in again.run_requests or []]


def test_a_changed_file_is_taken_in_again_and_its_old_bytes_are_taken_back(
    workspace: Workspace, instance: dg.DagsterInstance
) -> None:
    drop(workspace, "a")
    first = tick(workspace, instance)
    assert isinstance(first, dg.SensorResult)
    (workspace.settings.landing / "a").write_text("other content")
    second = tick(workspace, instance, first.cursor)
    assert isinstance(second, dg.SensorResult)
    (old,) = [request.partition_key for request in first.run_requests or []]
    assert [request.run_key for request in second.run_requests or []][-1] == f"{old}/1"
    assert len(second.run_requests or []) == 2


def test_batches_a_person_loads_are_left_to_that_person(workspace: Workspace, instance: dg.DagsterInstance) -> None:
    drop(workspace, "a")
    cut_all(workspace, is_announced=False)
    assert isinstance(tick(workspace, instance), dg.SkipReason)


def test_a_folder_loaded_once_under_a_name_of_its_own_is_announced_by_the_sensor_of_loads(
    workspace: Workspace, instance: dg.DagsterInstance, tmp_path: Path, definitions: dg.Definitions
) -> None:
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "old").write_text("x")
    config = {"ops": {"register_location": {"config": {"location": str(tmp_path / "archive"), "source": "old_site"}}}}
    job = definitions.resolve_job_def("load_source")
    assert job.execute_in_process(instance=instance, run_config=config).success
    assert isinstance(tick(workspace, instance), dg.SkipReason)
    result = loads(workspace, instance)
    assert isinstance(result, dg.SensorResult)
    assert len(result.run_requests or []) == 1
    assert isinstance(loads(workspace, instance, result.cursor), dg.SkipReason)


def loads(
    workspace: Workspace, instance: dg.DagsterInstance, cursor: str | None = None
) -> dg.SensorResult | dg.SkipReason:
    context = dg.build_sensor_context(instance=instance, cursor=cursor, resources={"workspace": workspace})
    result = intake.one_time_loads(context)
    assert isinstance(result, dg.SensorResult | dg.SkipReason)
    return result


def test_a_vanished_object_has_its_batch_run_again_once(workspace: Workspace, instance: dg.DagsterInstance) -> None:
    drop(workspace, "a", "b", "c")
    first = tick(workspace, instance)
    assert isinstance(first, dg.SensorResult)
    ((key,),) = [[request.partition_key for request in first.run_requests or []]]
    (workspace.settings.landing / "b").unlink()
    second = tick(workspace, instance, first.cursor)
    assert isinstance(second, dg.SensorResult)
    assert [(r.partition_key, r.run_key) for r in second.run_requests or []] == [(key, f"{key}/1")]
    assert isinstance(tick(workspace, instance, second.cursor), dg.SkipReason)


def test_a_landing_folder_that_is_suddenly_empty_is_said_and_nothing_is_run(
    workspace: Workspace, instance: dg.DagsterInstance
) -> None:
    drop(workspace, "a", "b", "c")
    first = tick(workspace, instance)
    assert isinstance(first, dg.SensorResult)
    for name in ("a", "b", "c"):
        (workspace.settings.landing / name).unlink()
    second = tick(workspace, instance, first.cursor)
    assert isinstance(second, dg.SkipReason)
    assert "--believe-deletions landing" in str(second.skip_message)
    lines = intake.reconcile(workspace, instance, ["landing"])
    assert "3 are gone" in lines[0]
    assert isinstance(tick(workspace, instance, first.cursor), dg.SensorResult)


def test_a_source_that_is_missing_fails_its_tick_but_not_what_was_found_before(
    workspace: Workspace, instance: dg.DagsterInstance
) -> None:
    drop(workspace, *(f"f{n}" for n in range(9)))
    first = tick(workspace, instance)
    assert isinstance(first, dg.SensorResult)
    shutil.rmtree(workspace.settings.landing)
    second = tick(workspace, instance, first.cursor)
    assert isinstance(second, dg.SensorResult)
    assert len(second.run_requests or []) == 1
    with pytest.raises(ConfigurationError, match="landing"):
        tick(workspace, instance, second.cursor)


def test_what_the_catalog_lacks_is_announced_again_by_the_reconcile(
    workspace: Workspace, instance: dg.DagsterInstance, definitions: dg.Definitions
) -> None:
    drop(workspace, "a", "b")
    first = tick(workspace, instance)
    assert isinstance(first, dg.SensorResult)
    (key,) = [request.partition_key for request in first.run_requests or []]
    job = definitions.resolve_job_def("reconcile_sources")
    assert job.execute_in_process(instance=instance).success
    assert isinstance(tick(workspace, instance, first.cursor), dg.SkipReason), "its first run is still to come"
    finish(instance, str(key), workspace.chain_version())  # Dagster thinks it is done; the lake is of an older backup
    assert job.execute_in_process(instance=instance).success
    second = tick(workspace, instance, first.cursor)
    assert isinstance(second, dg.SensorResult)
    assert [(r.partition_key, r.run_key) for r in second.run_requests or []] == [(key, f"{key}/1")]


def test_each_source_has_a_sensor_and_batches_of_its_own(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    for name in ("north", "south"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "film").write_text(name)
    entries = [{"name": n, "location": str(tmp_path / n), "minimum_age_seconds": 0} for n in ("north", "south")]
    (tmp_path / "sources.yaml").write_text(yaml.safe_dump({"sources": entries}))
    variables = environment(tmp_path / "home", SOURCES=str(tmp_path / "sources.yaml"))
    workspace = Workspace(Settings.from_environment(variables))
    definitions = build_defs(workspace)
    dg.Definitions.validate_loadable(definitions)
    assert {"north_sensor", "south_sensor", "one_time_loads"} <= {sensor.name for sensor in definitions.sensors or []}
    for config in workspace.settings.sources:
        context = dg.build_sensor_context(instance=instance, resources={"workspace": workspace})
        result = intake.source_sensor(config)(context)
        assert isinstance(result, dg.SensorResult)
        ((key,),) = [[str(request.partition_key) for request in result.run_requests or []]]
        with workspace.ledger() as ledger:
            assert {target.source for target in ledger.manifest(key)} == {config.name}


def repair(workspace: Workspace, instance: dg.DagsterInstance) -> list[str] | str:
    with dg.build_schedule_context(
        instance=instance, scheduled_execution_time=datetime.now(UTC), resources={"workspace": workspace}
    ) as context:
        result = intake.repair_batches(context)
    if isinstance(result, dg.SkipReason):
        return str(result.skip_message)
    assert isinstance(result, list)
    keys = [request.run_key for request in result]
    assert all(keys), "Dagster refuses several requests of one tick without a run key each"
    assert len(set(keys)) == len(keys)
    return [str(request.partition_key) for request in result]


def finish(instance: dg.DagsterInstance, key: str, version: str, *, revision: int = 0, unread: int = 0) -> None:
    """What a run of a batch leaves behind in Dagster's record."""
    read = {reporting.LEDGER_REVISION: revision, reporting.UNREAD_OBJECTS: unread}
    for asset, metadata in (
        (asset_key("bronze", "object_catalog"), read),
        (asset_key("deid", "deid_verification"), {reporting.UNREAD_OBJECTS: 0}),
        (intake.LAST_ASSET, {reporting.CHAIN_VERSION: version}),
    ):
        instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=key, metadata=metadata))


def test_missing_and_outdated_batches_are_repaired_oldest_first(
    workspace: Workspace, instance: dg.DagsterInstance
) -> None:
    drop(workspace, *(f"f{n}" for n in range(6)))
    first, second = cut_all(workspace, is_announced=True)
    assert repair(workspace, instance) == [first.batch_id, second.batch_id]
    assert set(instance.get_dynamic_partitions("arrival_batch")) == {first.batch_id, second.batch_id}
    finish(instance, first.batch_id, workspace.chain_version())
    assert repair(workspace, instance) == [second.batch_id]
    finish(instance, second.batch_id, "another version of the code")
    assert repair(workspace, instance) == [second.batch_id]
    finish(instance, second.batch_id, workspace.chain_version(), unread=2)
    assert repair(workspace, instance) == [second.batch_id]
    finish(instance, second.batch_id, workspace.chain_version())
    with workspace.ledger() as ledger:
        ledger.announce_again([first.batch_id])  # an object of it has vanished since
    assert repair(workspace, instance) == [first.batch_id]
    finish(instance, first.batch_id, workspace.chain_version(), revision=1)
    assert "up to date" in repair(workspace, instance)


def test_a_batch_that_failed_three_times_waits_for_a_person_and_is_named(
    workspace: Workspace, instance: dg.DagsterInstance
) -> None:
    drop(workspace, "a")
    (batch,) = cut_all(workspace, is_announced=True)
    for _ in range(intake.ATTEMPTS_PER_BATCH):
        from dagster._core.test_utils import create_run_for_test

        create_run_for_test(
            instance,
            job_name="ingest_batch",
            tags={"dagster/partition": batch.batch_id},
            status=dg.DagsterRunStatus.FAILURE,
        )
    reason = repair(workspace, instance)
    assert batch.batch_id in reason
    assert "wait for a person" in reason


def evaluate(
    definitions: dg.Definitions, instance: dg.DagsterInstance, at: datetime, cursor: object = None
) -> dg.EvaluateAutomationConditionsResult:
    return dg.evaluate_automation_conditions(definitions, instance, evaluation_time=at, cursor=cursor)  # type: ignore[arg-type]


def automated(condition: dg.AutomationCondition[dg.AssetKey]) -> dg.Definitions:
    """A small graph with the real conditions: a batch, a model, predictions; and nightly labels."""

    @dg.asset(key=asset_key("gold", "image_tensor"), partitions_def=arrival_batches)
    def image_tensor() -> None: ...

    @dg.asset(key=asset_key("gold", "pneumonia_model"))
    def pneumonia_model() -> None: ...

    @dg.asset(
        key=asset_key("gold", "model_prediction"),
        partitions_def=arrival_batches,
        deps=[image_tensor, pneumonia_model],
        automation_condition=condition,
    )
    def model_prediction() -> None: ...

    @dg.asset(key=asset_key("gold", "label"), deps=[image_tensor], automation_condition=nightly_if_new)
    def label() -> None: ...

    return dg.Definitions([image_tensor, pneumonia_model, model_prediction, label])


def materialize(instance: dg.DagsterInstance, table: str, partition: str | None = None) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization(asset_key("gold", table), partition=partition))


PREDICTION = asset_key("gold", "model_prediction")


def test_a_new_batch_is_predicted_by_itself_and_an_old_one_not_again(instance: dg.DagsterInstance) -> None:
    definitions = automated(when_batch_is_ready)
    noon = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
    instance.add_dynamic_partitions("arrival_batch", ["k1"])
    result = evaluate(definitions, instance, noon)
    materialize(instance, "image_tensor", "k1")
    result = evaluate(definitions, instance, noon.replace(minute=1), result.cursor)
    assert not result.get_requested_partitions(PREDICTION), "there is no model yet"
    materialize(instance, "pneumonia_model")
    result = evaluate(definitions, instance, noon.replace(minute=2), result.cursor)
    assert result.get_requested_partitions(PREDICTION) == {"k1"}
    materialize(instance, "model_prediction", "k1")
    instance.add_dynamic_partitions("arrival_batch", ["k2"])
    result = evaluate(definitions, instance, noon.replace(minute=3), result.cursor)
    materialize(instance, "image_tensor", "k2")
    result = evaluate(definitions, instance, noon.replace(minute=4), result.cursor)
    assert result.get_requested_partitions(PREDICTION) == {"k2"}
    materialize(instance, "model_prediction", "k2")
    materialize(instance, "pneumonia_model")
    result = evaluate(definitions, instance, noon.replace(minute=5), result.cursor)
    assert not result.get_requested_partitions(PREDICTION)


def test_labels_are_read_at_night_when_something_came(instance: dg.DagsterInstance) -> None:
    definitions = automated(when_batch_is_ready)
    label = asset_key("gold", "label")
    instance.add_dynamic_partitions("arrival_batch", ["k1"])
    result = evaluate(definitions, instance, datetime(2026, 1, 31, 12, 0, tzinfo=UTC))
    materialize(instance, "image_tensor", "k1")
    result = evaluate(definitions, instance, datetime(2026, 1, 31, 13, 0, tzinfo=UTC), result.cursor)
    assert result.get_num_requested(label) == 0
    result = evaluate(definitions, instance, datetime(2026, 2, 1, 3, 0, 30, tzinfo=UTC), result.cursor)
    assert result.get_num_requested(label) == 1
    materialize(instance, "label")
    result = evaluate(definitions, instance, datetime(2026, 2, 2, 3, 0, 30, tzinfo=UTC), result.cursor)
    assert result.get_num_requested(label) == 0


def test_no_asset_of_a_later_zone_runs_past_a_blocking_check(definitions: dg.Definitions) -> None:
    """A blocking check holds only the assets below its own; each zone must depend on what guards the one before."""
    graph = definitions.resolve_asset_graph()
    guarded = {key.asset_key for key in graph.asset_check_keys if graph.get_check_spec(key).blocking}
    assert len(guarded) == 6
    zones = ["bronze", "silver", "deid"]
    for here, after in zip(zones, ["silver", "deid", "gold"], strict=True):
        for guard in (key for key in guarded if key.path[0] == here):
            below = graph.get_ancestor_asset_keys
            later = [key for key in graph.get_all_asset_keys() if key.path[0] == after and key.path[-1] != "label"]
            ops = {key: graph.get(key).execution_set_asset_keys for key in later}
            assert all(any(guard in below(member) for member in ops[key]) for key in later), f"{guard} guards not all"


def test_a_run_whose_command_line_was_killed_is_reported_failed(workspace: Workspace) -> None:
    """A run left STARTED would hold a place in the queue, and its batch would never be due again."""
    import socket
    import subprocess
    import sys

    from dagster._core.test_utils import create_run_for_test

    from imaging_pipeline.defs import runner

    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with runner.open_instance(workspace.settings) as instance:
        for process in (dead.pid, os.getpid()):
            tags = {runner.HOST_TAG: socket.gethostname(), runner.PROCESS_TAG: str(process)}
            create_run_for_test(instance, job_name="ingest_batch", tags=tags, status=dg.DagsterRunStatus.STARTED)
    with runner.open_instance(workspace.settings) as instance:
        found = {run.tags[runner.PROCESS_TAG]: run.status for run in instance.get_runs()}
    assert found == {str(dead.pid): dg.DagsterRunStatus.FAILURE, str(os.getpid()): dg.DagsterRunStatus.STARTED}
