"""The command line's own runs, on the instance that Dagster's pages show."""

from __future__ import annotations

import threading
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.utils import make_new_run_id

from imaging_pipeline.defs import runner as module
from imaging_pipeline.defs.assets.model import TRAINING_POOL
from imaging_pipeline.defs.runner import Runner, open_instance
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.settings import Settings
from imaging_pipeline_tests.conftest import environment


def test_a_second_training_waits_for_the_first_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PLACE_SECONDS", 0.01)
    settings = Settings.from_environment(environment(tmp_path / "home"))
    said: list[str] = []

    @dg.op(pool=TRAINING_POOL)
    def trained() -> None:
        said.append("trained")

    @dg.job
    def train_model() -> None:
        trained()

    with open_instance(settings) as instance:
        storage = instance.event_log_storage
        storage.initialize_concurrency_limit_to_default(TRAINING_POOL)
        other = instance.add_run(dg.DagsterRun("other", make_new_run_id(), status=dg.DagsterRunStatus.STARTED))
        storage.claim_concurrency_slot(TRAINING_POOL, other.run_id, "its step")
        assert storage.get_concurrency_info(TRAINING_POOL).active_slot_count == 1

        def end() -> None:
            said.append("ended")
            storage.free_concurrency_slots_for_run(other.run_id)

        def waits() -> None:
            said.append("waits")
            threading.Timer(0.5, end).start()

        runner = Runner(dg.Definitions(jobs=[train_model]), Workspace(settings), instance)
        assert runner.train(waits).succeeded
        assert said == ["waits", "ended", "trained"]
        storage.claim_concurrency_slot(TRAINING_POOL, "of a run that is gone", "its step")
        assert runner.train(waits).succeeded
    assert said == ["waits", "ended", "trained", "trained"]
