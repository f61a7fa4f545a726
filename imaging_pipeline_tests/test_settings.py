from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.settings import Settings
from imaging_pipeline_tests.conftest import MASTER_KEY


def made(home: Path, **variables: str) -> Settings:
    return Settings.from_environment({"IMAGING_PIPELINE_HOME": str(home)} | variables)


def test_a_missing_key_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="openssl rand -base64 32"):
        made(tmp_path).master_key()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("no base64!", "not base64"),
        (base64.b64encode(b"short").decode(), "expected 32"),
        (base64.b64encode(b"a" * 32).decode(), "not random enough"),
        (base64.b64encode(b"passwordpasswordpasswordpassword").decode(), "not random enough"),
    ],
)
def test_a_weak_key_is_refused_without_being_shown(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint) as refusal:
        made(tmp_path, IMAGING_PIPELINE_MASTER_KEY=text).master_key()
    assert text not in str(refusal.value)


def test_the_key_file_is_private_and_made_once(tmp_path: Path) -> None:
    settings = made(tmp_path)
    assert settings.create_key_file()
    key = settings.master_key()
    assert stat.S_IMODE(settings.key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(settings.key_file.parent.stat().st_mode) == 0o700
    assert not settings.create_key_file()
    assert settings.master_key() == key


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    settings = made(tmp_path)
    settings.create_key_file()
    settings.key_file.chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        settings.master_key()


def test_secrets_are_in_no_representation(tmp_path: Path) -> None:
    settings = made(
        tmp_path,
        IMAGING_PIPELINE_MASTER_KEY=MASTER_KEY,
        IMAGING_PIPELINE_RESEARCH_CATALOG="postgres:host=db password=hunter2",
        IMAGING_PIPELINE_MLFLOW_URI="postgresql://user:hunter2@db/mlflow",
    )
    assert MASTER_KEY not in repr(settings)
    assert "hunter2" not in repr(settings)


def test_a_misspelt_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="IMAGING_PIPELINE_LANDNIG"):
        made(tmp_path, IMAGING_PIPELINE_LANDNIG="/data")


@pytest.mark.parametrize(
    ("name", "value"), [("WORKERS", "0"), ("BATCH_OBJECTS", "many"), ("MINIMUM_AGE_SECONDS", "-1")]
)
def test_a_number_out_of_range_is_refused(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        made(tmp_path, **{f"IMAGING_PIPELINE_{name}": value})
