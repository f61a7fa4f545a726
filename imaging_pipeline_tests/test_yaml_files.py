"""What is said of YAML files that cannot be used; every reader of one goes through the same place."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import imaging_pipeline
from imaging_pipeline.deid.profile import load_profile
from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.yaml_files import read_yaml

PACKAGE = Path(imaging_pipeline.__file__).parent


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: 1\nb:\n  secret: 2\n  secret: 3\n", "is no YAML near line 3: a key is given twice"),
        (b"a: [1\nb: 2\n", "is no YAML near line 2"),
        (b"a: \xff\n", "is no UTF-8 text"),
        (b"a: !!python/object:os.system {}\n", "is no YAML near line 1"),
    ],
)
def test_what_is_wrong_is_said_by_line(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "file.yaml").write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"^the file {said}") as refusal:
        read_yaml(tmp_path / "file.yaml", "the file")
    assert "secret" not in str(refusal.value)


def test_a_missing_file_is_said_and_an_empty_one_holds_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="the file cannot be read"):
        read_yaml(tmp_path / "file.yaml", "the file")
    (tmp_path / "file.yaml").touch()
    assert read_yaml(tmp_path / "file.yaml", "the file") is None


def test_a_profile_that_says_something_twice_is_refused(tmp_path: Path) -> None:
    """YAML would keep the last: what somebody had removed further up would be kept without a word."""
    profile = tmp_path / "profile.yaml"
    profile.write_text("extends: research\nremove: [PatientAge]\nremove: []\n", "utf-8")
    with pytest.raises(ConfigurationError, match="a key is given twice"):
        load_profile(profile)


def test_yaml_is_read_in_one_place() -> None:
    readers = {
        path.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in {"safe_load", "SafeLoader"}
    }
    assert readers == {"yaml_files.py"}
