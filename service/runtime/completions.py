"""What a model has written: at once, or piece by piece."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol

from service.domain.generations import FinishReason, Message, Usage

Prompt = str | tuple[Message, ...]
"""A text to continue, or a conversation."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model wrote, as it wrote it.

    Attributes:
        first_at: When its first token was there, by `time.perf_counter`; None where no model wrote it.
    """

    text: str
    usage: Usage
    finish_reason: FinishReason
    first_at: float | None = field(default=None, compare=False)


class Pieces(Protocol):
    """An answer as it is written: pieces of its text, none of them empty, and the whole of it at last."""

    def __aiter__(self) -> AsyncIterator[str | Completion]: ...

    def close(self) -> None:
        """Give up what has not been written yet. Does nothing at the end."""
        ...


class AtOnce:
    """The pieces of an answer that is there already."""

    def __init__(self, completion: Completion) -> None:
        self._completion = completion

    async def __aiter__(self) -> AsyncIterator[str | Completion]:
        if self._completion.text:
            yield self._completion.text
        yield self._completion

    def close(self) -> None:
        """Nothing to give up."""
