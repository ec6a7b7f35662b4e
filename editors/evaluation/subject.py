"""What is measured: anything that answers prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Scored:
    """A target under teacher forcing: each of its tokens given the prompt and the target's tokens before it.

    Attributes:
        log_probabilities: Of the target's tokens, in nats.
        likeliest: Whether each was the likeliest token in its place.
        answer: What `generate` would say, where scoring has shown it: the target, when every token of it is the
            likeliest and the end of the answer after it; None says nothing.
    """

    log_probabilities: tuple[float, ...]
    likeliest: tuple[bool, ...]
    answer: str | None = None

    @property
    def mean(self) -> float:
        """Mean log-probability of a token."""
        return sum(self.log_probabilities) / len(self.log_probabilities)

    @property
    def exact(self) -> bool:
        """Whether every token was the likeliest: the papers' "exact match"."""
        return all(self.likeliest)


class Subject(Protocol):
    """Answers prompts; a model, a model with a memory, or a service elsewhere."""

    def generate(self, prompts: Sequence[str]) -> list[str]:
        """The answers, generated freely and greedily, stripped, in the order of the prompts."""
        ...

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Scored]:
        """How likely each target is after its prompt: (prompt, target) pairs, in order."""
        ...

    def distributions(self, pairs: Sequence[tuple[str, str]]) -> list[Tensor]:
        """For each pair, log-probabilities of every token in each place of the target: [target tokens, vocabulary]."""
        ...
