"""The champion behind MLflow's own server: over REST it says what it says in SQL."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from imaging_pipeline.pneumonia.prediction import load_champion
from imaging_pipeline.pneumonia.sql_function import register_functions
from imaging_pipeline_tests.metadata.headers import memory_lake
from imaging_pipeline_tests.pneumonia.learned import LearnedModel, learn_in
from imaging_pipeline_tests.pneumonia.test_scoring import put_index

ENOUGH = 360
"""Images of which a third is enough to know what a film is."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> LearnedModel:
    made = learn_in(tmp_path_factory.mktemp("served"), ENOUGH)
    made.tracker.promote(made.learned.model.version)  # an alarm is raised: spots are no lungs
    return made


@pytest.fixture(scope="module")
def server(learned: LearnedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of ``mlflow models serve``, as the documentation starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    scripts = Path(sys.executable).parent
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": learned.tracker.tracking_uri,
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
    }
    command = [str(scripts / "mlflow"), "models", "serve", "-m", "models:/pneumonia@champion"]
    command += ["--env-manager", "local", "-h", "127.0.0.1", "-p", str(port)]
    log = tmp_path_factory.mktemp("log") / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, cwd=log.parent, start_new_session=True
        )
    try:
        _wait(f"http://127.0.0.1:{port}/ping", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait(60)


def _wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(address, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    raise AssertionError(log.read_text())


def posted(server: str, images: np.ndarray) -> list[float]:
    answer = httpx.post(f"{server}/invocations", json={"inputs": images.tolist()}, timeout=60)
    assert answer.status_code == 200, answer.text
    scores: list[float] = json.loads(answer.text)["predictions"]
    return scores


def test_rest_and_sql_say_the_same_of_an_image(server: str, learned: LearnedModel) -> None:
    champion = load_champion(learned.tracker)
    assert champion is not None
    with memory_lake("research") as lake:
        put_index(lake, learned)
        register_functions(lake.connection, lambda: champion)
        in_sql = dict(lake.rows("SELECT instance_key, predict_pneumonia(instance_key) FROM gold.image_tensor"))
    rows = learned.rows[:5]
    scores = posted(server, np.stack([row.array for row in rows]).astype(np.float32) / 255)
    for row, score in zip(rows, scores, strict=True):
        expected = in_sql[row.instance_key]
        assert score == pytest.approx(np.nan if expected is None else expected, abs=1e-5, nan_ok=True)
    assert np.isfinite(scores).any()


def test_what_is_no_film_gets_no_answer_over_rest_either(server: str) -> None:
    stripes = np.tile((np.arange(32) // 4 % 2).astype(np.float32), (1, 1, 32, 1))
    assert np.isnan(posted(server, stripes)).all()


def test_an_image_of_another_shape_is_refused(server: str) -> None:
    answer = httpx.post(f"{server}/invocations", json={"inputs": [[0.0, 1.0]]}, timeout=60)
    assert answer.status_code == 400
