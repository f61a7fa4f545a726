"""The example app in a real MONAI Label server, on the research service: films in, a mask, segmentations back.

Needs MONAILABEL_PYTHON: the Python of an environment as docs/how-to/labelling.md makes it.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from imaging_pipeline.pneumonia.annotation_labels import import_annotations
from imaging_pipeline.samples.landing import new_study
from imaging_pipeline.web.access.gate import open_access
from imaging_pipeline.web.access.roles import Role
from imaging_pipeline_tests.conftest import environment
from imaging_pipeline_tests.servers.pacs import free_port, is_open, running, wait_for
from imaging_pipeline_tests.web.clinic import Clinic

PYTHON = os.environ.get("MONAILABEL_PYTHON", "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="MONAILABEL_PYTHON names no environment with MONAI Label"),
]

APP = Path(__file__).parents[2] / "examples" / "monailabel_app"
SIZE = 160


class Labelling:
    """A running MONAI Label, and the clinic whose research service it works on."""

    def __init__(self, url: str, clinic: Clinic) -> None:
        self.clinic = clinic
        self.client = httpx.Client(base_url=url, timeout=120)

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        with self.clinic.workspace.research(read_only=True) as lake:
            return lake.rows(sql)

    def series(self) -> str:
        """The series of the one film that the search filter lets through."""
        ((uid,),) = self.rows("SELECT series_instance_uid FROM deid.dicom_series WHERE modality = 'DX'")
        return str(uid)

    def infer(self, **parameters: object) -> httpx.Response:
        answer = self.client.post(
            "/infer/lungs",
            params={"image": self.series(), "output": "image"},
            data={"params": json.dumps(parameters)},
        )
        assert answer.status_code == 200, answer.text
        return answer


@pytest.fixture(scope="module")
def labelling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labelling]:
    root = tmp_path_factory.mktemp("labelling")
    app = shutil.copytree(APP, root / "app", ignore=shutil.ignore_patterns("model", "logs"))
    script = [sys.executable, str(app / "export_model.py"), str(app / "model" / "lungs.ts")]
    subprocess.run(script, check=True, timeout=300, env=os.environ | {"PYTHONPATH": str(APP.parents[1])})
    clinic = Clinic(root / "home")
    clinic.take_in(**{str(seed): new_study(root / "films", seed, size=SIZE).read_bytes() for seed in (1, 2)})
    clinic.release()
    access = open_access(clinic.workspace.settings, "research")
    project = clinic.workspace.settings.project
    access.accounts.add_user("drawer", {Role.RESEARCH, Role.ANNOTATOR}, {project})
    token, port, own_port = access.accounts.create_token("drawer").text, free_port(), free_port()
    serve = [sys.executable, "-m", "imaging_pipeline.cli", "serve", "--zone", "research", "--port", str(port)]
    variables = os.environ | environment(root / "home", LANDING=str(clinic.landing))
    label = [PYTHON, "-m", "monailabel.main", "start_server", "--app", str(app), "--host", "127.0.0.1"]
    label += ["--studies", f"http://127.0.0.1:{port}/dicom-web", "--port", str(own_port)]
    settings = {
        "MONAI_LABEL_DICOM_TOKEN": token,
        "MONAI_LABEL_DICOMWEB_SEARCH_FILTER": '{"Modality": "DX"}',
        "MONAI_LABEL_DICOMWEB_CACHE_PATH": str(root / "cache"),
        "HOME": str(root),
    }
    with running(serve, root / "serve.log", env=variables) as service:
        wait_for(lambda: is_open(port), service)
        with running(label, root / "monailabel.log", env=os.environ | settings, cwd=root) as server:
            for _ in range(5):  # it takes its time to start
                with contextlib.suppress(AssertionError):
                    wait_for(lambda: is_open(own_port), server)
            wait_for(lambda: is_open(own_port), server)
            yield Labelling(f"http://127.0.0.1:{own_port}", clinic)


def test_its_datastore_lists_the_films_that_it_asks_the_service_for(labelling: Labelling) -> None:
    info = labelling.client.get("/info/").json()
    assert list(info["models"]) == ["lungs"]
    assert info["datastore"]["total"] == 1


def test_the_model_finds_two_lungs_and_the_mask_comes_back_as_a_segmentation(labelling: Labelling) -> None:
    mask = np.frombuffer(gzip.decompress(labelling.infer().content)[352:], np.uint8)
    assert mask.size == SIZE * SIZE
    assert set(np.unique(mask)) == {0, 1, 2}
    assert 0.1 < np.mean(mask > 0) < 0.6
    labelling.infer(save_label=True, label_tag="final")
    assert labelling.rows("SELECT kind, user_name FROM gold.annotation") == [("SEG", "drawer")]
    assert labelling.rows(
        "SELECT segment_label, segment_algorithm_type FROM deid.dicom_segmentation_metadata ORDER BY 1"
    ) == [("left lung", "AUTOMATIC"), ("right lung", "AUTOMATIC")]


def test_what_a_person_draws_becomes_a_label_with_its_box(labelling: Labelling) -> None:
    drawn = bytearray(gzip.decompress(labelling.infer().content))
    mask = np.frombuffer(drawn, np.uint8, offset=352).reshape(SIZE, SIZE)  # rows by columns: columns run first
    mask[100:120, 30:45] = 3
    answer = labelling.client.put(
        "/datastore/label",
        params={"image": labelling.series(), "tag": "final"},
        files={"label": ("mask.nii.gz", gzip.compress(bytes(drawn)))},
        data={"params": "{}"},
    )
    assert answer.status_code == 200, answer.text
    with labelling.clinic.workspace.research() as lake:
        assert import_annotations(lake).labels == 1
    assert labelling.rows("SELECT task, label_numeric, bbox, layout FROM gold.label ORDER BY bbox NULLS FIRST") == [
        ("pneumonia", 1.0, None, "SEG"),
        ("pneumonia", 1.0, [30.0, 100.0, 15.0, 20.0], "SEG"),
    ]
