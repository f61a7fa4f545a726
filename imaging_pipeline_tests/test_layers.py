"""The layering rules, read from the syntax trees: imports point down, Dagster and torch stay where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import imaging_pipeline

PACKAGE = Path(imaging_pipeline.__file__).parent
ORDER = [
    "__init__", "errors", "yaml_files", "shipped", "sources", "settings", "sqlite", "workers", "objects", "dicom",
    "samples", "conversion", "pacs", "lake", "catalog", "metadata", "deid", "tensors", "segmentation", "pneumonia",
    "delivery", "describe", "web", "doctor", "defs", "definitions", "cli_access", "cli_dataset", "cli_deid",
    "cli_import", "cli_pacs", "cli_predict", "cli_send", "cli_serve", "cli",
]  # fmt: skip
MODULES = sorted(PACKAGE.rglob("*.py"))


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "imaging_pipeline")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down_and_dagster_stays_in_defs(path: Path) -> None:
    here = layer(path)
    for name in imports(path):
        root, _, rest = name.partition(".")
        if root == "imaging_pipeline" and rest and rest.partition(".")[0] in ORDER:
            assert ORDER.index(rest.partition(".")[0]) <= ORDER.index(here), f"{path} imports upward: {name}"
        assert not root.startswith("dagster") or here in {"defs", "definitions"}, f"{path} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_settings_reads_the_environment(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    reads = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}]
    allowed = {"settings", "cli"}  # the command line hands the whole environment to the process it becomes
    assert not reads or layer(path) in allowed


def test_the_code_location_loads_without_torch_mlflow_and_plots() -> None:
    code = (
        "import sys, imaging_pipeline.definitions;"
        "print([m for m in ('torch', 'mlflow', 'matplotlib', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_module_says_what_it_owns() -> None:
    silent = [str(path) for path in MODULES if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert not silent
