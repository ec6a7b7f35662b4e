"""Checkpoints of a training: written whole or not at all, and good only for the training that made them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from editors.errors import InvalidCheckpoint


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A file that holds how far a training has come.

    Attributes:
        path: The file.
        made_by: What the training depends on, as plain values; a checkpoint made by anything else is refused.
        parts: What has a `state_dict`, by name: model, optimizer, schedule.
    """

    path: Path
    made_by: Mapping[str, Any]
    parts: Mapping[str, Any]

    def save(self, step: int) -> None:
        """Write the state after `step` steps; the file before it stays until this one is complete."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        partial = self.path.with_suffix(".partial")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"step": step, "made_by": dict(self.made_by), **state}, partial)
        partial.replace(self.path)

    def resume(self) -> int:
        """Load the parts, and return how many steps have been made; 0 where there is no file.

        Raises:
            InvalidCheckpoint: The file is damaged, or of another training.
        """
        if not self.path.exists():
            return 0
        try:
            state = torch.load(self.path, weights_only=True, map_location="cpu")
            made_by, step = state["made_by"], int(state["step"])
        except Exception as error:  # torch raises whatever its unpickler stumbles over
            raise InvalidCheckpoint(
                f"{self.path} is no checkpoint, or a damaged one.", hint="Remove it to start again, or name another."
            ) from error
        if made_by != dict(self.made_by):
            changed = sorted(key for key in {*made_by, *self.made_by} if made_by.get(key) != self.made_by.get(key))
            raise InvalidCheckpoint(
                f"{self.path} was made by another training: {', '.join(changed)} differ.",
                hint="Remove it to start again, name another, or give the settings that made it.",
            )
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        return step
