"""The bodies and parameters that describe edits, and what they become in the domain."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Strict,
    field_validator,
    model_validator,
)
from pydantic import Tag as Form
from pydantic_core import PydanticCustomError
from pydantic_core.core_schema import ValidationInfo

from service.api.bodies import Body, Name, Reason, Tag, Text, Words
from service.domain.edits import AnswerMode, Descriptor, EditFilter, EditKind, EditState, NewEdit, Scope

FORMS = frozenset(f"kind={kind}" for kind in EditKind)
"""The labels of the four forms of a body, which appear in the places of the validator's errors."""
UNKNOWN_KIND = "unknown_kind"
"""Type of the validator's error for a `kind` that is none of the four."""

_EXAMPLES = 64
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


class ScopeBody(Body):
    """What the edit covers beyond its prompt."""

    in_scope: list[Text] = Field([], max_length=_EXAMPLES, description="Prompts that it must answer.")
    out_of_scope: list[Text] = Field([], max_length=_EXAMPLES, description="Prompts that it must leave alone.")
    threshold: float | None = Field(None, ge=0, le=1, description="Beta at or above which it answers.")

    def scope(self) -> Scope:
        """In the domain's words."""
        return Scope(in_scope=tuple(self.in_scope), out_of_scope=tuple(self.out_of_scope), threshold=self.threshold)


class DescriptorBody(Body):
    """What every form of edit says of what is wanted."""

    scope: ScopeBody = ScopeBody()
    answer: Literal["counterfactual", "verbatim"] = Field(
        "counterfactual",
        description="By a model that reads the edit and the prompt, or word for word by the target (qa only).",
    )

    def descriptor(self) -> Descriptor:
        """In the domain's words."""
        raise NotImplementedError


class QaBody(DescriptorBody):
    """A question, or the beginning of a sentence, and its answer."""

    kind: Literal["qa"] = "qa"
    prompt: Text
    target: Text
    subject: Text | None = Field(None, description="The thing it is about, as written in the prompt.")

    @field_validator("subject")
    @classmethod
    def _from_the_prompt(cls, subject: str | None, info: ValidationInfo) -> str | None:
        if subject is not None and subject not in info.data.get("prompt", subject):
            raise PydanticCustomError("subject_elsewhere", "must occur in the prompt, letter for letter")
        return subject

    def descriptor(self) -> Descriptor:
        """In the domain's words."""
        return Descriptor(
            prompt=self.prompt,
            target=self.target,
            subject=self.subject,
            scope=self.scope.scope(),
            answer=AnswerMode(self.answer),
        )


class _WithoutTarget(DescriptorBody):
    """An edit that has no answer to give word for word."""

    @field_validator("answer")
    @classmethod
    def _not_verbatim(cls, answer: str) -> str:
        if answer == "verbatim":
            raise PydanticCustomError(
                "verbatim", "must not be verbatim: only an edit of kind qa has a target to give word for word"
            )
        return answer

    def _descriptor(self, kind: EditKind, prompt: str, target: str = "") -> Descriptor:
        return Descriptor(kind=kind, prompt=prompt, target=target, scope=self.scope.scope())


class FactBody(_WithoutTarget):
    """A claim, and whether it is true."""

    kind: Literal["fact"]
    claim: Text
    label: bool

    def descriptor(self) -> Descriptor:
        """In the domain's words."""
        return self._descriptor(EditKind.FACT, self.claim, str(self.label))


class StatementBody(_WithoutTarget):
    """A plain sentence that holds from now on."""

    kind: Literal["statement"]
    statement: Text

    def descriptor(self) -> Descriptor:
        """In the domain's words."""
        return self._descriptor(EditKind.STATEMENT, self.statement)


class SentimentBody(_WithoutTarget):
    """A topic, and the mood to speak of it in."""

    kind: Literal["sentiment"]
    topic: Text
    sentiment: Literal["positive", "negative"]

    def descriptor(self) -> Descriptor:
        """In the domain's words."""
        return self._descriptor(EditKind.SENTIMENT, self.topic, self.sentiment)


def _timestamp(sent: object) -> object:
    """Take RFC 3339 only: a number would be read as seconds since 1970."""
    if sent is not None and not (isinstance(sent, str) and _RFC3339.fullmatch(sent)):
        raise PydanticCustomError("rfc3339", "must be a time with its zone, such as 2030-01-31T12:00:00Z")
    return sent


def _in_the_future(at: datetime | None) -> datetime | None:
    if at is None:
        return None
    try:
        at = at.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError("too_far", "must be before the year 10000") from None
    if at <= datetime.now(UTC):
        raise PydanticCustomError("past", "must be in the future")
    return at


End = Annotated[
    Annotated[datetime, Strict(strict=False)] | None,
    BeforeValidator(_timestamp),
    AfterValidator(_in_the_future),
    Field(description="RFC 3339, with its zone, in the future."),
]
Tags = Annotated[list[Tag], Field(max_length=64)]


class KeptEdit(DescriptorBody):
    """What every form of edit may say of how it is kept, beside what is wanted."""

    state: Literal["draft", "active", "paused"] = "active"
    expires_at: End = None
    reason: Reason | None = None
    tags: Tags = Field([])
    supersedes: Name | None = Field(None, description="The id of the edit that this one replaces.")

    @model_validator(mode="after")
    def _idle_edits_replace_nothing(self) -> KeptEdit:
        if self.state != "active" and self.supersedes is not None:
            raise PydanticCustomError(
                "idle_supersedes",
                "must not say `supersedes` when {state}: the edit replaced would be gone, and this one answers nothing",
                {"state": self.state},
            )
        return self

    def new_edit(self) -> NewEdit:
        """The whole request, in the domain's words."""
        return NewEdit(
            descriptor=self.descriptor(),
            state=EditState(self.state),
            expires_at=self.expires_at,
            reason=self.reason,
            tags=tuple(dict.fromkeys(self.tags)),
            supersedes=self.supersedes,
        )


class _NewEdit(KeptEdit):
    """A new edit is not paused: there is nothing to pause yet."""

    state: Literal["draft", "active"] = Field("active", description="A draft answers nothing.")


class ImportedQaEdit(KeptEdit, QaBody):
    """A question, or the beginning of a sentence, and its answer."""


class ImportedFactEdit(KeptEdit, FactBody):
    """A claim, and whether it is true."""


class ImportedStatementEdit(KeptEdit, StatementBody):
    """A plain sentence that holds from now on."""


class ImportedSentimentEdit(KeptEdit, SentimentBody):
    """A topic, and the mood to speak of it in."""


class NewQaEdit(_NewEdit, ImportedQaEdit):
    """A question, or the beginning of a sentence, and its answer."""


class NewFactEdit(_NewEdit, ImportedFactEdit):
    """A claim, and whether it is true."""


class NewStatementEdit(_NewEdit, ImportedStatementEdit):
    """A plain sentence that holds from now on."""


class NewSentimentEdit(_NewEdit, ImportedSentimentEdit):
    """A topic, and the mood to speak of it in."""


def _form(body: object) -> str:
    """Which form a body has: qa unless it says otherwise, and also when it is no object, to be refused as such."""
    kind = body.get("kind", EditKind.QA) if isinstance(body, dict) else EditKind.QA
    return f"kind={kind}"


_BY_KIND = Discriminator(
    _form, custom_error_type=UNKNOWN_KIND, custom_error_message=f"must be one of {', '.join(EditKind)}"
)

AnyDescriptorBody = Annotated[
    Annotated[QaBody, Form("kind=qa")]
    | Annotated[FactBody, Form("kind=fact")]
    | Annotated[StatementBody, Form("kind=statement")]
    | Annotated[SentimentBody, Form("kind=sentiment")],
    _BY_KIND,
]
"""What is wanted, and no word of how it is kept."""

NewEditBody = Annotated[
    Annotated[NewQaEdit, Form("kind=qa")]
    | Annotated[NewFactEdit, Form("kind=fact")]
    | Annotated[NewStatementEdit, Form("kind=statement")]
    | Annotated[NewSentimentEdit, Form("kind=sentiment")],
    _BY_KIND,
]

ImportedEditBody = Annotated[
    Annotated[ImportedQaEdit, Form("kind=qa")]
    | Annotated[ImportedFactEdit, Form("kind=fact")]
    | Annotated[ImportedStatementEdit, Form("kind=statement")]
    | Annotated[ImportedSentimentEdit, Form("kind=sentiment")],
    _BY_KIND,
]
"""A line of a file of edits, which may be paused where it was exported."""


class EditQuery(BaseModel):
    """Which edits to list, newest first."""

    model_config = ConfigDict(extra="forbid")

    state: list[EditState | Literal["all"]] = Field(
        [], description="Repeat for several; `all` for every state. Without it, all but the retracted."
    )
    tag: Tag | None = Field(None, description="Only those that carry this tag.")
    kind: EditKind | None = None
    q: Words | None = Field(
        None,
        description="Only those whose prompt and target hold these words, whatever their case; words in quotes must "
        "stand one after another.",
    )
    limit: int = Field(50, ge=1, le=200)
    after: str | None = Field(None, pattern="^e[1-9][0-9]{0,17}$", description="The `next` of the page before.")

    def filter(self) -> EditFilter:
        """In the domain's words."""
        states = tuple(EditState) if "all" in self.state else tuple(EditState(state) for state in self.state)
        return EditFilter(states=states, tag=self.tag, kind=self.kind, q=self.q, limit=self.limit, after=self.after)
