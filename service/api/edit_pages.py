"""How edits and their history look on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from service.domain.changes import Change, ChangeKind
from service.domain.edits import AnswerMode, Descriptor, Edit, EditKind, EditPage, EditState


class ScopePage(BaseModel):
    """What the edit covers beyond its prompt."""

    in_scope: list[str]
    out_of_scope: list[str]
    threshold: float | None


# The four forms below are put together from three parts so that a form's own fields come second on the wire.


class _Named(BaseModel):
    id: str
    revision: int = Field(description="Of its latest change; its ETag.")


class _Qa(BaseModel):
    kind: Literal["qa"] = "qa"
    prompt: str
    target: str
    subject: str | None


class _Fact(BaseModel):
    kind: Literal["fact"] = "fact"
    claim: str
    label: bool


class _Statement(BaseModel):
    kind: Literal["statement"] = "statement"
    statement: str


class _Sentiment(BaseModel):
    kind: Literal["sentiment"] = "sentiment"
    topic: str
    sentiment: Literal["positive", "negative"]


class _Kept(BaseModel):
    scope: ScopePage
    answer: AnswerMode
    state: EditState
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None
    reason: str | None
    tags: list[str]
    supersedes: str | None
    superseded_by: str | None


class QaEdit(_Kept, _Qa, _Named):
    """A question, or the beginning of a sentence, and its answer."""


class FactEdit(_Kept, _Fact, _Named):
    """A claim, and whether it is true."""


class StatementEdit(_Kept, _Statement, _Named):
    """A plain sentence that holds from now on."""


class SentimentEdit(_Kept, _Sentiment, _Named):
    """A topic, and the mood to speak of it in."""


AnyEdit = Annotated[QaEdit | FactEdit | StatementEdit | SentimentEdit, Field(discriminator="kind")]
_FORMS: dict[EditKind, type[QaEdit | FactEdit | StatementEdit | SentimentEdit]] = {
    EditKind.QA: QaEdit,
    EditKind.FACT: FactEdit,
    EditKind.STATEMENT: StatementEdit,
    EditKind.SENTIMENT: SentimentEdit,
}


class EditList(BaseModel):
    """One page of a listing, newest first."""

    data: list[AnyEdit]
    has_more: bool
    next: str | None = Field(description="Send it as `after` to get the next page.")


class ChangePage(BaseModel):
    """One thing that happened to an edit."""

    revision: int
    kind: ChangeKind
    actor: str
    reason: str | None
    at: datetime
    payload: dict[str, Any]


class History(BaseModel):
    """Everything that happened to an edit, oldest first."""

    data: list[ChangePage]


def render_edit(edit: Edit) -> QaEdit | FactEdit | StatementEdit | SentimentEdit:
    """An edit on the wire."""
    return _FORMS[edit.descriptor.kind].model_validate(wanted_fields(edit.descriptor) | _kept_fields(edit))


def render_page(page: EditPage) -> EditList:
    """A page on the wire."""
    following = page.data[-1].id if page.has_more else None
    return EditList(data=[render_edit(edit) for edit in page.data], has_more=page.has_more, next=following)


def render_history(changes: tuple[Change, ...]) -> History:
    """A history on the wire."""
    return History(data=[ChangePage.model_validate(change, from_attributes=True) for change in changes])


def wanted_fields(descriptor: Descriptor) -> dict[str, Any]:
    """What an edit says of what is wanted, in the fields of its form."""
    scope = descriptor.scope
    return _own_fields(descriptor) | {
        "scope": {
            "in_scope": list(scope.in_scope),
            "out_of_scope": list(scope.out_of_scope),
            "threshold": scope.threshold,
        },
        "answer": descriptor.answer.value,
    }


def _own_fields(descriptor: Descriptor) -> dict[str, Any]:
    kind = {"kind": descriptor.kind.value}
    match descriptor.kind:
        case EditKind.QA:
            return kind | {"prompt": descriptor.prompt, "target": descriptor.target, "subject": descriptor.subject}
        case EditKind.FACT:
            return kind | {"claim": descriptor.prompt, "label": descriptor.target == str(True)}
        case EditKind.STATEMENT:
            return kind | {"statement": descriptor.prompt}
        case EditKind.SENTIMENT:
            return kind | {"topic": descriptor.prompt, "sentiment": descriptor.target}


def _kept_fields(edit: Edit) -> dict[str, Any]:
    return {
        "id": edit.id,
        "revision": edit.revision,
        "state": edit.state,
        "created_at": edit.created_at,
        "updated_at": edit.updated_at,
        "expires_at": edit.expires_at,
        "reason": edit.reason,
        "tags": list(edit.tags),
        "supersedes": edit.supersedes,
        "superseded_by": edit.superseded_by,
    }
