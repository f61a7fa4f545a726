from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import sqlite3
import time
from pathlib import Path

import pytest

from imaging_pipeline_tests.integration import chain

pytestmark = pytest.mark.slow

README = Path(__file__).parents[2] / "README.md"
PATIENTS = "30"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def first(home: Path) -> str:
    """What the first demo printed."""
    status, output = chain.run(home, home / "landing", "demo", "--patients", PATIENTS)
    assert status == 0, output
    return output


def rows_of(home: Path, sql: str) -> list[dict[str, object]]:
    return chain.query(home, home / "landing", sql)


def test_the_demo_shows_counts_issues_the_model_and_what_to_do_next(first: str) -> None:
    assert re.search(r"seen (\d+) = parsed \d+ \+ failed \d+ \+ skipped \d+", first)
    assert re.search(r"test AUROC \d\.\d{3} \(95 % CI \d\.\d{3} to \d\.\d{3}, bootstrap by patient\)", first)
    for zone in ("bronze", "silver", "deid", "gold"):
        assert re.search(rf"^{zone} +\D+ +[1-9]", first, re.MULTILINE), zone
    assert "sop_class_not_released" in first
    assert "make dev" in first


def test_a_second_demo_parses_and_trains_nothing_and_says_so(home: Path, first: str) -> None:
    before = chain.contents(home, home / "landing")
    status, output = chain.run(home, home / "landing", "demo", "--patients", PATIENTS)
    assert status == 0, output
    assert "nothing is parsed again" in output
    assert "nothing is trained again" in output
    assert chain.contents(home, home / "landing") == before


def test_every_tensor_has_a_prediction_and_every_split_its_own_patients(home: Path, first: str) -> None:
    (counts,) = rows_of(
        home,
        """SELECT (SELECT count(*) FROM gold.image_tensor) AS tensors,
            (SELECT count(*) FROM gold.model_prediction WHERE probability BETWEEN 0 AND 1) AS predictions,
            (SELECT count(*) FROM gold.dataset_member) AS members""",
    )
    assert counts["tensors"] == counts["predictions"]
    assert counts["members"] == counts["tensors"]
    two_sides = rows_of(
        home, "SELECT patient_pseudonym FROM gold.dataset_member GROUP BY ALL HAVING count(DISTINCT split) > 1"
    )
    assert two_sides == []


def test_labels_reach_the_images_they_are_about(home: Path, first: str) -> None:
    """Each label on the research side is that of the file with this stem on the identified side."""
    from imaging_pipeline.deid.pseudonyms import ProjectKeys
    from imaging_pipeline.objects.model import key_of
    from imaging_pipeline.samples.landing import read_targets

    settings = chain.settings_of(home, home / "landing")
    keys = ProjectKeys.derive(settings.master_key(), settings.project)
    stems = rows_of(
        home,
        r"""SELECT regexp_extract(storage_uri, '([^/!]+)\.dcm$', 1) AS stem, sop_instance_uid AS uid, object_key
        FROM identified.silver.dicom_file_location
        JOIN identified.silver.dicom_instance USING (instance_key, object_key)""",
    )
    issues = rows_of(home, "SELECT object_key FROM identified.bronze.ingest_issue WHERE stage = 'DEID'")
    held = {row["object_key"] for row in issues}
    labels = {
        row["subject_key"]: row["label_numeric"]
        for row in rows_of(home, "SELECT * FROM gold.label WHERE subject_level = 'INSTANCE'")
    }
    targets = read_targets(home / "landing" / "stage_2_train_labels.csv")
    labelled = [row for row in stems if row["stem"] in targets]
    released = [row for row in labelled if row["object_key"] not in held]
    assert labels == {key_of(keys.uid(str(row["uid"]))): targets[str(row["stem"])] for row in released}
    assert len(released) >= 0.95 * len(labelled)  # a shadow may look like letters: such an image waits for a person
    assert set(labels.values()) == {0.0, 1.0}


def test_the_model_is_tracked_and_tied_to_its_dataset(home: Path, first: str) -> None:
    (dataset,) = rows_of(home, "SELECT dataset_version, manifest_sha256 FROM gold.dataset_version")
    with sqlite3.connect(home / "research" / "mlflow" / "mlflow.db") as store:
        tags = dict(store.execute("SELECT key, value FROM tags").fetchall())
        aliases = store.execute("SELECT alias, version FROM registered_model_aliases").fetchall()
        metrics = {name for (name,) in store.execute("SELECT DISTINCT key FROM metrics")}
    assert tags["dataset_version"] == dataset["dataset_version"]
    assert tags["dataset_digest"] == dataset["manifest_sha256"]
    assert tags["dagster/run_id"]
    assert aliases == [("champion", 1)]
    assert {"test_auroc", "test_auroc_ci_low", "train_loss", "validation_auroc"} <= metrics


def test_the_registered_model_and_its_figures_are_rows_of_the_lake(home: Path, first: str) -> None:
    (model,) = rows_of(home, "SELECT * FROM gold.embedding_model")
    with sqlite3.connect(home / "research" / "mlflow" / "mlflow.db") as store:
        runs = store.execute("SELECT run_uuid FROM runs").fetchall()
        tags = dict(store.execute("SELECT key, value FROM model_version_tags").fetchall())
        metrics = dict(store.execute("SELECT key, value FROM latest_metrics").fetchall())
    assert runs == [(model["mlflow_run_id"],)]
    assert (model["mlflow_model_uri"], model["stage"]) == ("models:/pneumonia/1", "production")
    assert model["weights_sha256"] == tags["weights_sha256"]
    (dataset,) = rows_of(home, "SELECT dataset_id, dataset_version FROM gold.dataset_version")
    assert {name: model[name] for name in dataset} == dataset
    figures = rows_of(home, "SELECT * FROM gold.embedding_evaluation JOIN gold.embedding_model USING (model_key)")
    whole = {row["metric_name"]: row for row in figures if row["subgroup"] == "{}"}
    for name in ("auroc", "auprc", "sensitivity", "specificity"):
        assert whole[name]["metric_value"] == pytest.approx(metrics[f"test_{name}"])
        assert whole[name]["ci_low"] == pytest.approx(metrics[f"test_{name}_ci_low"])
    assert any("view" in str(row["subgroup"]) for row in figures)


def test_every_tensor_has_an_embedding_and_is_its_own_nearest_neighbour(home: Path, first: str) -> None:
    (counts,) = rows_of(
        home,
        """SELECT (SELECT count(*) FROM gold.image_tensor) AS tensors,
            (SELECT count(DISTINCT tensor_key) FROM gold.image_embedding JOIN gold.embedding_model USING (model_key)
                WHERE len(embedding_vector) = dimensionality) AS embedded""",
    )
    assert counts["embedded"] == counts["tensors"]
    (width,) = {row["dimensionality"] for row in rows_of(home, "SELECT dimensionality FROM gold.embedding_model")}
    strangers = rows_of(
        home,
        f"""SELECT this.tensor_key
        FROM gold.image_embedding AS this JOIN gold.image_embedding AS other USING (model_key)
        GROUP BY 1 HAVING arg_max(other.tensor_key, array_cosine_similarity(
            this.embedding_vector::FLOAT[{width}], other.embedding_vector::FLOAT[{width}])) <> this.tensor_key""",
    )
    assert strangers == []


def readme_queries() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    text = "\n".join(line for block in blocks for line in block.splitlines() if not line.startswith("#"))
    return [shlex.split(call)[1:] for call in re.findall(r'imaging-pipeline sql (?:--\S+ ?\w* )*"[^"]*"', text)]


def test_the_readme_has_four_questions() -> None:
    assert len(readme_queries()) == 4


@pytest.mark.parametrize("arguments", readme_queries(), ids=("by modality", "failed", "traced", "scored"))
def test_each_question_of_the_readme_has_an_answer(home: Path, first: str, arguments: list[str]) -> None:
    status, output = chain.run(home, home / "landing", *arguments)
    assert status == 0, output
    assert len(output.splitlines()) >= 2, output


def test_a_prediction_is_traced_to_its_source_object(home: Path, first: str) -> None:
    traced = readme_queries()[2]
    status, output = chain.run(home, home / "landing", *traced, "--csv")
    assert status == 0, output
    uri = output.splitlines()[1].split(",")[-1]
    path = uri.partition("://")[2].partition("!")[0]
    assert Path(path).is_file()
    assert str(home / "landing") in path


def test_status_and_doctor_are_content(home: Path, first: str) -> None:
    status, output = chain.run(home, home / "landing", "status")
    assert status == 0
    assert "models:/pneumonia/1" in output
    assert "unfinished" not in output
    status, output = chain.run(home, home / "landing", "doctor")
    assert status == 0, output
    assert "FAIL" not in output
    assert "JPEG 2000" in output


def test_doctor_names_an_open_folder_of_patient_data(home: Path, first: str) -> None:
    (home / "identified").chmod(0o755)
    status, output = chain.run(home, home / "landing", "doctor")
    (home / "identified").chmod(0o700)
    assert status == 1
    assert "chmod -R go-rwx" in output


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("ingest", "/nowhere"), 2, "there is nothing at its location"),
        (("sql", "DROP TABLE deid.dicom_study"), 1, "one SELECT is expected"),
        (("sql", "SELECT * FROM nonsense"), 1, "nonsense"),
        (("sql", "--lake", "identified", "SELECT 1 AS one", "--csv"), 0, "one\n1"),
        (("key", "create"), 0, "already"),
    ],
)
def test_commands_say_what_is_wrong_in_one_line_and_by_status(
    home: Path, first: str, arguments: tuple[str, ...], status: int, said: str
) -> None:
    found, output = chain.run(home, home / "landing", *arguments)
    assert found == status
    assert said in output
    assert "Traceback" not in output


def test_a_file_dropped_while_dev_runs_becomes_a_prediction_by_itself(home: Path, first: str) -> None:
    """The real daemon: the sensor finds it, its run makes rows and tensor, automation predicts."""
    from imaging_pipeline.samples.landing import new_study

    landing = home / "landing"
    dropped = (
        "SELECT probability FROM gold.model_prediction WHERE arrival_batch = "
        "(SELECT arrival_batch FROM identified.bronze.object_catalog WHERE storage_uri LIKE '%{stem}.dcm')"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    server = chain.command(home, landing, "dev", "--port", port)
    try:
        path = new_study(landing, seed=77)
        deadline = time.monotonic() + 300
        found: list[dict[str, object]] = []
        while not found and time.monotonic() < deadline:
            assert server.poll() is None, "the server ended"
            time.sleep(5)
            found = rows_of(home, dropped.format(stem=path.stem))
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    assert len(found) == 1
    assert 0 <= float(str(found[0]["probability"])) <= 1
