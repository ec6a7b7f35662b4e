"""Answers that are not written twice: what is kept of one, and where. An answer's key holds all that it depends on.

So what is kept under a key is right for ever: nothing is ever invalidated, it is only forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from service.domain.generations import FinishReason, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAnswer:
    """What was written, as it was written, and what it took."""

    text: str
    usage: Usage
    finish_reason: FinishReason


@dataclass(slots=True, kw_only=True)
class Lookups:
    """How often one tier of the cache was asked, by what came of it.

    Attributes:
        tier: `memory` or `redis`.
        errors: It could not say, or held something else than an answer.
    """

    tier: str
    hits: int = 0
    misses: int = 0
    errors: int = 0


class AnswerCache(Protocol):
    """Keeps answers for a while. It may forget any at any time, and never raises: without it, answers are the same."""

    async def get(self, key: str) -> KeptAnswer | None:
        """The answer of that key, or None."""
        ...

    async def put(self, key: str, answer: KeptAnswer) -> None:
        """Keep an answer."""
        ...

    def lookups(self) -> Sequence[Lookups]:
        """What came of asking, in each tier."""
        ...


class NoAnswers:
    """A cache that keeps nothing."""

    async def get(self, key: str) -> None:
        """None."""

    async def put(self, key: str, answer: KeptAnswer) -> None:
        """Forget it."""

    def lookups(self) -> Sequence[Lookups]:
        """There is no tier."""
        return ()
