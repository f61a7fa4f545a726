"""YAML files that come with the package under a name, and the site's own under a path."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.yaml_files import read_yaml


def shipped_names(package: str, folder: str) -> list[str]:
    """Names of the files that come with ``package`` in its folder ``data/folder``."""
    files = resources.files(package) / "data" / folder
    return sorted(entry.name.removesuffix(".yaml") for entry in files.iterdir())


def load_yaml(name_or_path: str | Path, *, kind: str, package: str, folder: str) -> Mapping[str, Any]:
    """The content of a shipped file, by its name, or of the site's own.

    Args:
        name_or_path: a name comes first: no file of the working folder can stand in for a shipped one.
        kind: what such a file is called in messages.
        package: whose ``data/folder`` holds the shipped ones.
        folder: see there.

    Raises:
        ConfigurationError: there is no such file, or it is no mapping in YAML, or gives a key twice.
    """
    shipped = resources.files(package) / "data" / folder / f"{name_or_path}.yaml"
    file = shipped if shipped.is_file() else Path(name_or_path)
    if not file.is_file():
        names = ", ".join(shipped_names(package, folder))
        raise ConfigurationError(f"{kind}: expected the name of a shipped {kind} ({names}) or the path of a YAML file")
    content = read_yaml(file, f"the file of the {kind}")
    if not isinstance(content, Mapping):
        raise ConfigurationError(f"{kind}: expected a mapping of keys, found {type(content).__name__}")
    return content
