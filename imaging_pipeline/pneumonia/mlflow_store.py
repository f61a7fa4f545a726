"""How calls of MLflow are made: quietly, and so that a busy store is told from a wrong call.

Owns what every use of an MLflow store shares. Which store, which experiment and which model are the tracker's.
"""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from imaging_pipeline.errors import TransientError
from imaging_pipeline.pneumonia.recording import CARD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Set

    from mlflow import MlflowClient

T = TypeVar("T")

RERUN_HELPS = {"TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED"}
"""Error codes of MLflow for a locked database or a busy server."""


@contextlib.contextmanager
def mlflow_store() -> Iterator[None]:
    """Keeps MLflow silent (no telemetry, no progress bars, errors only) and tells a busy store from a wrong call."""
    from mlflow import environment_variables as switches  # noqa: PLC0415
    from mlflow.exceptions import MlflowException  # noqa: PLC0415
    from mlflow.telemetry import set_telemetry_client  # noqa: PLC0415

    switches.MLFLOW_DISABLE_TELEMETRY.set("true")  # type: ignore[no-untyped-call]
    switches.MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set("false")  # type: ignore[no-untyped-call]
    set_telemetry_client()  # type: ignore[no-untyped-call]
    loggers = {name: logging.getLogger(name) for name in ("mlflow", "alembic")}
    levels = {name: logger.level for name, logger in loggers.items()}
    try:
        for logger in loggers.values():
            logger.setLevel(logging.ERROR)
        yield
    except MlflowException as error:
        is_unreachable = isinstance(error.__cause__ or error.__context__, OSError)
        if error.error_code in RERUN_HELPS or is_unreachable:
            raise TransientError(f"the MLflow store failed with {error.error_code}; try again") from error
        raise
    finally:
        for name, logger in loggers.items():
            logger.setLevel(levels[name])


def unless(error_codes: Set[str], call: Callable[[], T]) -> T | None:
    """The result of ``call``, or None when MLflow answers with one of ``error_codes``."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    try:
        return call()
    except MlflowException as error:
        if error.error_code not in error_codes:
            raise
        return None


def unfinished_run(client: MlflowClient, experiment_id: str, tag: str, value: str) -> str | None:
    """The newest run with this tag that nobody has ended: its process was killed."""
    if not value:
        return None
    condition = f"tags.`{tag}` = '{value}' AND attributes.status = 'RUNNING'"
    found = client.search_runs([experiment_id], condition, max_results=1)
    return found[0].info.run_id if found else None


def card_of(client: MlflowClient, run_id: str) -> dict[str, Any]:
    """The card of a run; empty when the run, or its card, is not in the store."""
    files = unless({"RESOURCE_DOES_NOT_EXIST"}, lambda: client.list_artifacts(run_id)) or []
    if CARD not in {entry.path for entry in files}:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        card: dict[str, Any] = json.loads(Path(client.download_artifacts(run_id, CARD, folder)).read_bytes())
        return card
