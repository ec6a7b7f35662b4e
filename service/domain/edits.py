"""Edits: what an operator asks for, what is kept of it, and the rules they obey."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol


class EditKind(StrEnum):
    """The forms a descriptor z_e can take (Mitchell et al. 2022, sec. 2)."""

    QA = "qa"
    """A question or the beginning of a sentence, and its answer."""
    FACT = "fact"
    """A claim, and whether it is true."""
    STATEMENT = "statement"
    """A plain sentence that holds from now on."""
    SENTIMENT = "sentiment"
    """A topic, and the mood to speak of it in."""


class EditState(StrEnum):
    """Where an edit stands in its life."""

    DRAFT = "draft"
    ACTIVE = "active"
    PAUSED = "paused"
    EXPIRED = "expired"
    RETRACTED = "retracted"


class AnswerMode(StrEnum):
    """How an in-scope prompt is answered."""

    COUNTERFACTUAL = "counterfactual"
    """By the counterfactual model, which reads the edit and the prompt."""
    VERBATIM = "verbatim"
    """By the target, word for word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What the operator says of an edit's scope beyond its prompt.

    Attributes:
        in_scope: Prompts that it must answer.
        out_of_scope: Prompts that it must leave alone.
        threshold: Beta at or above which it answers, in [0, 1]; the service's own when None.
    """

    in_scope: tuple[str, ...] = ()
    out_of_scope: tuple[str, ...] = ()
    threshold: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """The edit descriptor z_e.

    Attributes:
        kind: Its form.
        prompt: The question (qa), the claim (fact), the sentence (statement) or the topic (sentiment).
        target: The answer (qa), `True` or `False` (fact), nothing (statement), `positive` or `negative` (sentiment).
        subject: The thing it is about, as written in the prompt; weight editors need it, the memory does not.
        scope: The operator's examples and threshold.
        answer: How in-scope prompts are answered.
    """

    prompt: str
    target: str = ""
    kind: EditKind = EditKind.QA
    subject: str | None = None
    scope: Scope = Scope()
    answer: AnswerMode = AnswerMode.COUNTERFACTUAL

    @property
    def key(self) -> str:
        """Equal for two descriptors that cannot both be in force, since they settle the same thing."""
        return f"{self.kind}:{normalise(self.prompt)}"

    @property
    def answers(self) -> tuple[tuple[str, str], ...]:
        """What it should answer, as (prompt, text), where that text is known beforehand; its own prompt comes first.

        A question's examples are asked for its answer. Of a claim only the claim itself is: what its examples ask is
        not known. A sentence gives no answer, and an opinion in the right mood can be any.
        """
        if self.kind is EditKind.QA:
            return tuple((prompt, self.target) for prompt in (self.prompt, *self.scope.in_scope))
        if self.kind is EditKind.FACT:
            return ((f"True or false: {self.prompt}", self.target),)
        return ()

    @property
    def texts(self) -> tuple[str, ...]:
        """What is embedded, in this order: the prompt, the in-scope examples, the out-of-scope examples."""
        return (self.prompt, *self.scope.in_scope, *self.scope.out_of_scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEdit:
    """A request to add an edit."""

    descriptor: Descriptor
    state: EditState = EditState.ACTIVE
    expires_at: datetime | None = None
    reason: str | None = None
    tags: tuple[str, ...] = ()
    supersedes: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """An edit as it is kept.

    Attributes:
        id: Its name, such as `e17`.
        revision: Of its latest change; its ETag.
        superseded_by: The edit that replaced it, if one did.
    """

    id: str
    revision: int
    descriptor: Descriptor
    state: EditState
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None = None
    reason: str | None = None
    tags: tuple[str, ...] = ()
    supersedes: str | None = None
    superseded_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """The embeddings of a descriptor's texts, as they are stored.

    Attributes:
        encoder: Fingerprint of the encoder that made them; those of another encoder are made again.
        vectors: float32, little endian, [len(descriptor.texts), width], row-major.
    """

    encoder: str
    vectors: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEdit:
    """An edit with its embeddings: what the live memory needs."""

    edit: Edit
    embeddings: Embeddings


@dataclass(frozen=True, slots=True, kw_only=True)
class EditFilter:
    """Which edits to list, newest first.

    Attributes:
        states: Those in any of these states; every state but retracted when empty.
        tag: Those that carry this tag.
        kind: Those of this kind.
        q: Those whose prompt and target hold these words, whatever their case; those in quotes, one after another.
        limit: At most this many.
        after: Only those older than this id.
    """

    states: tuple[EditState, ...] = ()
    tag: str | None = None
    kind: EditKind | None = None
    q: str | None = None
    limit: int = 50
    after: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EditPage:
    """One page of a listing."""

    data: tuple[Edit, ...]
    has_more: bool


class EditReader(Protocol):
    """Reads edits within one transaction."""

    async def get(self, edit_id: str) -> Edit | None:
        """The edit of that id in whatever state, or None."""
        ...

    async def page(self, wanted: EditFilter) -> EditPage:
        """The edits that pass the filter, newest first."""
        ...

    async def oldest(self, wanted: EditFilter) -> EditPage:
        """The edits that pass the filter, oldest first; `after` then leads to newer ones."""
        ...

    async def active_with_keys(self, keys: Sequence[str]) -> Mapping[str, Edit]:
        """The active, unexpired edits whose descriptors have one of these keys, by the key."""
        ...

    async def active_with_key(self, key: str) -> Edit | None:
        """The active, unexpired edit whose descriptor has this key, or None."""
        ...

    async def active(self) -> tuple[StoredEdit, ...]:
        """Every active edit, oldest first."""
        ...

    async def in_force(self) -> tuple[Edit, ...]:
        """As `active`, without the embeddings."""
        ...

    async def with_ids(self, ids: tuple[str, ...]) -> tuple[StoredEdit, ...]:
        """The edits of these ids, in whatever state."""
        ...

    async def count(self) -> int:
        """How many edits are in force now."""
        ...

    async def overdue(self) -> bool:
        """Whether an edit's time has come and no writer has recorded it yet."""
        ...


class EditWriter(EditReader, Protocol):
    """Changes edits within one transaction; each change takes the next revision."""

    async def add(self, new: NewEdit, embeddings: Embeddings) -> Edit:
        """Keep a new edit."""
        ...

    async def add_all(self, new: Sequence[NewEdit], embeddings: Sequence[Embeddings]) -> tuple[str, ...]:
        """Keep new edits, as `add` one after another; their ids."""
        ...

    async def change(
        self, before: Edit, after: Edit, *, embeddings: Embeddings | None = None, reason: str | None = None
    ) -> Edit:
        """Keep an edit as `after` has it, with new embeddings where its texts are others; the log gets what differs."""
        ...

    async def retract(self, edit_id: str, *, reason: str | None = None, superseded_by: str | None = None) -> Edit:
        """End an edit's life; its row and history stay."""
        ...

    async def embed_again(self, edit_id: str, embeddings: Embeddings) -> None:
        """Replace the embeddings, which are derived data: this is no change and takes no revision."""
        ...


def normalise(prompt: str) -> str:
    """A prompt without what two writers of the same question may do differently: case, spacing, final punctuation."""
    text = unicodedata.normalize("NFKC", prompt).casefold()
    return re.sub(r"\s+", " ", text).strip().rstrip("?.! ")
