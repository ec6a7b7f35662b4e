"""Generations: a prompt in, an answer out, and what happened on the way."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, field
from enum import StrEnum

ACTIVE = "active"
"""In place of a version's name: whichever is to answer."""


class Source(StrEnum):
    """Who answered."""

    BASE = "base"
    EDIT = "edit"


class FinishReason(StrEnum):
    """Why generation ended."""

    STOP = "stop"
    """The model ended its answer, or a stop string appeared."""
    LENGTH = "length"
    """max_new_tokens was reached."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen.

    Attributes:
        temperature: 0 takes the likeliest token each time.
        top_p: Mass of the nucleus sampled from, in (0, 1].
        stop: Strings that end the answer; they are not part of it.
        seed: The same seed gives the same sample; None draws one.
        fitted: Whether fewer than `max_new_tokens` will do, where the context has no room for so many.
        unlimited: Whether the caller named no limit, so that a server elsewhere may take its own for a conversation.
    """

    max_new_tokens: int = 32
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    fitted: bool = False
    unlimited: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """A question to the model. Exactly one of `prompt` and `messages` is given.

    Attributes:
        version: `active`, or the name of a version such as `v0`.
        session: Who asks, so that all of it is answered by one version while there is a canary.
        edits: Whether the memory may answer.
        min_revision: Answer with at least this revision of the memory.
        stripped: Whether the answer comes without the whitespace that surrounds it.
    """

    prompt: str | None = None
    messages: tuple[Message, ...] = ()
    sampling: Sampling = Sampling()
    version: str = ACTIVE
    edits: bool = True
    min_revision: int | None = None
    session: str | None = None
    stripped: bool = True

    @property
    def key(self) -> str:
        """What decides whether the canary answers: the session, or else what is asked."""
        if self.session is not None:
            return f"session\0{self.session}"
        said = self.prompt if self.prompt is not None else json.dumps([asdict(turn) for turn in self.messages])
        return f"question\0{said}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where an answer comes from: known before its first word.

    Attributes:
        edit_id: The edit that answers, if one does.
        beta: The highest probability that the prompt is in the scope of an edit; None when no edit was considered.
        version: The version of the weights that answers what no edit does; the memory served the edits not in it.
        revision: The revision of the memory that decided.
    """

    source: Source
    edit_id: str | None
    beta: float | None
    version: str
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation(Head):
    """An answer and where it came from.

    Attributes:
        text: The continuation alone.
        first_seconds: From the request to the first token; None where no model wrote the answer.
    """

    text: str
    usage: Usage
    finish_reason: FinishReason
    first_seconds: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """An answer as it is written.

    Attributes:
        parts: Pieces of the text, which together are all of it, and the whole answer at last. May raise
            `EngineFailed` and `ShuttingDown`.
        close: Gives up what has not been written yet; to be called in the end, whatever happens.
    """

    head: Head
    parts: AsyncIterator[str | Generation]
    close: Callable[[], None]
