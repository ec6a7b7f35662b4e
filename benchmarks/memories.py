"""Edit memories to measure: many of them hold the same texts, so every text is embedded and every pair read once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from editors.edit import EditDescriptor
from editors.evaluation.subjects import Decide, Ruling
from editors.serac.cross_encoder import load_scope
from editors.serac.decide import ScopeDecision, decide
from editors.serac.memory import EditMemory, MemoryEntry
from editors.serac.scope import CrossEncoderScope, ScopeClassifier, SimilarityScope
from service.settings import Settings

CANDIDATES = int(Settings.model_fields["scope_candidates"].default)
"""Edits retrieved for each prompt, as the service does."""

Q = TypeVar("Q", bound=Hashable)


class Once(Generic[Q]):
    """A function of many questions that is asked each of them once.

    Args:
        ask: From n questions to n rows.
    """

    def __init__(self, ask: Callable[[Sequence[Q]], NDArray[Any]]) -> None:
        self._ask = ask
        self._known: dict[Q, Any] = {}

    def __call__(self, questions: Sequence[Q]) -> NDArray[Any]:
        """A row for each question, in order; at least one."""
        if new := list(dict.fromkeys(question for question in questions if question not in self._known)):
            self._known |= zip(new, self._ask(new), strict=True)
        return np.array([self._known[question] for question in questions])

    score = __call__


def load_classifier(path: Path) -> ScopeClassifier:
    """The scope classifier of a file: JSON holds a calibrated similarity, anything else a trained cross-encoder.

    Raises:
        InvalidClassifierFile: The file is missing, damaged, or holds something else.
        EncoderMismatch: It belongs to another encoder.
    """
    if path.suffix == ".json":
        return SimilarityScope.load(path)
    return reading_once(load_scope(path))


def reading_once(scope: CrossEncoderScope) -> CrossEncoderScope:
    """The same classifier, reading each pair once."""
    return replace(scope, scorer=Once(scope.scorer.score))


def hold(edits: Sequence[EditDescriptor], embed: Once[str]) -> EditMemory:
    """A memory of these edits, numbered from 0."""
    vectors = embed([edit.text for edit in edits])
    memory = EditMemory(vectors.shape[1])
    for number, (edit, vector) in enumerate(zip(edits, vectors, strict=True)):
        memory.put(
            number, MemoryEntry(descriptor=edit, in_scope=(edit.text,), out_of_scope=(), vectors=vector[None, :])
        )
    return memory


def deciding(memory: EditMemory, classifier: ScopeClassifier, embed: Once[str]) -> Decide:
    """SERAC's rule on a memory, as the service applies it."""

    def rule(prompts: Sequence[str]) -> list[Ruling]:
        decisions = decide(
            memory, classifier, prompts, embed(prompts), k=CANDIDATES, default_threshold=classifier.threshold
        )
        return [_ruling(memory, decision) for decision in decisions]

    return rule


def _ruling(memory: EditMemory, decision: ScopeDecision) -> Ruling:
    """The edit that answers; where none does, the beta of the one that came nearest to it."""
    leading = decision.answer or next(iter(decision.candidates), None)
    entry = None if decision.answer is None else memory.get(decision.answer.edit_id)
    return Ruling(beta=None if leading is None else leading.beta, edit=None if entry is None else entry.descriptor)
