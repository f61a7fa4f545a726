"""YAML files that people write: read as data, and what is wrong is said by line, never by value."""

from __future__ import annotations

from collections.abc import Hashable
from importlib.resources.abc import Traversable
from pathlib import Path

import yaml

from imaging_pipeline.errors import ConfigurationError


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice: YAML would keep the last one and drop the other without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:  # noqa: FBT001, FBT002
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if len(set(map(repr, keys))) < len(keys):
            raise yaml.MarkedYAMLError(problem="a key is given twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(file: Path | Traversable, what: str) -> object:
    """What a YAML file holds; None for an empty one.

    Args:
        file: it.
        what: how messages call it.

    Raises:
        ConfigurationError: it cannot be read, is no UTF-8 text, is no YAML, or gives a key twice.
    """
    try:
        content: object = yaml.load(file.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a safe loader
    except OSError as error:
        raise ConfigurationError(f"{what} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{what} is no UTF-8 text; save it as such") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" near line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be understood"
        raise ConfigurationError(f"{what} is no YAML{where}: {problem}") from None
    return content
