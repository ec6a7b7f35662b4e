"""Weight editors as methods to measure: a group's edits become a delta on a view, at a cost that is written down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.cases import request_of
from benchmarks.costs import Cost, costing
from editors.delta import install
from editors.errors import EditFailed
from editors.evaluation.cases import Case
from editors.evaluation.subject import Subject
from editors.evaluation.subjects import ModelSubject
from editors.method import Method
from editors.model.loading import BaseModel

Rephrase = Callable[[Case], tuple[str, ...]]
"""Further prompts to train on for a case's edit."""


@dataclass(kw_only=True)
class WeightEditing:
    """A weight editor with its settings, on one base.

    Attributes:
        assets: Folders of what it needs made beforehand.
        rephrase: What an edit is trained on beside its own prompt; nothing by default.
        max_new_tokens: Of an answer.
        costs: Of each group so far: how many edits it had, and what preparing its delta took.
        refused: Edits that it could not make; their groups are answered by the base.
    """

    base: BaseModel
    method: Method[Any]
    config: Any
    assets: tuple[Path, ...] = ()
    rephrase: Rephrase | None = None
    max_new_tokens: int = 32
    costs: list[tuple[int, Cost]] = field(default_factory=list)
    refused: int = 0

    def apply(self, group: Sequence[Case]) -> nullcontext[Subject]:
        """The base with the group's edits in its weights."""
        requests = [
            replace(request_of(case), paraphrases=self.rephrase(case) if self.rephrase else ()) for case in group
        ]
        with costing() as cost:
            try:
                delta = self.method.prepare(self.base, requests, self.config, assets=self.assets)
            except EditFailed:
                delta = None
        self.costs.append((len(requests), cost))
        if delta is None:
            self.refused += len(requests)
        model = self.base.model if delta is None else install(self.base, delta)
        context = self.base.context_length
        return nullcontext(
            ModelSubject(model, self.base.tokenizer, max_new_tokens=self.max_new_tokens, context_length=context)
        )
