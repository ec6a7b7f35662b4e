"""SERAC's rule: which edit, if any, answers an input (Mitchell et al. 2022, sec. 3)."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from editors.serac.memory import EditMemory, MemoryEntry, Retrieved
from editors.serac.scope import ScopeClassifier, ScopePair


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An edit that was considered for an input.

    Attributes:
        beta: Probability that the input is in its scope.
        threshold: Beta at or above which it answers.
        similarity: Cosine between the input and its nearest in-scope text.
        matched_text: That text.
        excluded: Whether one of its out-of-scope texts is at least as near; it then does not answer.
    """

    edit_id: int
    beta: float
    threshold: float
    similarity: float
    matched_text: str
    excluded: bool

    @property
    def answers(self) -> bool:
        """Whether it may answer the input."""
        return not self.excluded and self.beta >= self.threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeDecision:
    """What was decided for one input.

    Attributes:
        candidates: Every edit considered, the highest beta first.
    """

    candidates: tuple[Candidate, ...]

    @property
    def answer(self) -> Candidate | None:
        """The edit that answers: the best candidate that may; None leaves the input to the base."""
        return next((candidate for candidate in self.candidates if candidate.answers), None)


def decide(
    memory: EditMemory,
    classifier: ScopeClassifier,
    texts: Sequence[str],
    vectors: NDArray[np.float32],
    *,
    k: int,
    default_threshold: float,
    skip: Callable[[int], bool] | None = None,
) -> list[ScopeDecision]:
    """Retrieve k edits for each input, judge them all in one call, and choose.

    The paper asks only the best edit, i* = argmax beta, and falls back to the base below the threshold. Here edits
    have their own thresholds and exclusions, so one that may not answer gives way to the next and blocks nobody.
    An input that is an in-scope text of an edit, but for case, spacing and final punctuation, has beta 1: what the
    operator wrote needs no judge.

    Args:
        memory: The edits in force.
        classifier: Judges the other pairs that retrieval finds.
        texts: The inputs.
        vectors: Their unit embeddings, float32 [len(texts), memory.width].
        k: Edits considered for each input.
        default_threshold: For edits without their own.
        skip: Edits to leave out, such as expired ones and those that the served version contains.

    Raises:
        EncoderMismatch: The vectors have another width than the memory.
    """
    retrieved = memory.search(vectors, k, skip=skip)
    found = [[(_entry(memory, near), near) for near in edits] for edits in retrieved]
    betas = iter(_betas(classifier, texts, found))
    return [
        _decision([_candidate(entry, near, next(betas), default_threshold) for entry, near in edits]) for edits in found
    ]


def _betas(
    classifier: ScopeClassifier, texts: Sequence[str], found: Sequence[Sequence[tuple[MemoryEntry, Retrieved]]]
) -> list[float]:
    """The beta of each edit found, in order; one call judges all that are not settled by the operator's words."""
    asked = [(text, entry, near) for text, edits in zip(texts, found, strict=True) for entry, near in edits]
    settled = [_plain(text) in map(_plain, entry.in_scope) for text, entry, _ in asked]
    pairs = [_pair(entry, text, near) for (text, entry, near), sure in zip(asked, settled, strict=True) if not sure]
    judged = iter(classifier.beta(pairs) if pairs else [])
    return [1.0 if sure else next(judged) for sure in settled]


def _plain(text: str) -> str:
    """A text without what two writers of it may do differently."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip("?.! ")


def _decision(candidates: list[Candidate]) -> ScopeDecision:
    return ScopeDecision(candidates=tuple(sorted(candidates, key=lambda c: (-c.beta, -c.similarity, c.edit_id))))


def _entry(memory: EditMemory, near: Retrieved) -> MemoryEntry:
    entry = memory.get(near.edit_id)
    assert entry is not None, "a search returns edits that are present"
    return entry


def _pair(entry: MemoryEntry, text: str, near: Retrieved) -> ScopePair:
    return ScopePair(descriptor=entry.descriptor, matched_text=near.matched_text, text=text, similarity=near.similarity)


def _candidate(entry: MemoryEntry, near: Retrieved, beta: float, default_threshold: float) -> Candidate:
    return Candidate(
        edit_id=near.edit_id,
        beta=beta,
        threshold=default_threshold if entry.threshold is None else entry.threshold,
        similarity=near.similarity,
        matched_text=near.matched_text,
        excluded=near.excluded,
    )
