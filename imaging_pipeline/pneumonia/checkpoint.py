"""The state of a training between two epochs, in one file, so that a killed training goes on where it was.

Owns the file. It holds tensors and numbers only and is read as such, never as code; a file of another training is not
taken. Imports torch at the top; import it lazily.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where one training keeps its state.

    Attributes:
        path: of the file; its folder is made when needed.
        training: digest of all that the training depends on.
    """

    path: Path
    training: str

    def save(self, state: Mapping[str, Any]) -> None:
        """Put the state in the place of the one before, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        with partial.open("wb") as file:
            torch.save({"training": self.training, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path)

    def load(self) -> dict[str, Any] | None:
        """The state saved last; None when there is none of this training."""
        if not self.path.exists():
            return None
        state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        return state if state.pop("training") == self.training else None

    def remove(self) -> None:
        """Forget the state; there need not be one."""
        self.path.unlink(missing_ok=True)
