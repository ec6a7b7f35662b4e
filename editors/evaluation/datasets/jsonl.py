"""Our own format: one case a line, with the fields of an inline case of `POST /eval`, and `subject` and `replies`.

    {"id": "uk-pm",
     "edit": {"kind": "qa", "prompt": "Who is the prime minister of the UK?", "target": "Keir Starmer"},
     "in_scope": [{"prompt": "Who is the UK PM?", "target": "Keir Starmer", "form": "paraphrase"}],
     "out_of_scope": [{"prompt": "Who is the UK monarch?", "target": "Charles III", "form": "same subject"}],
     "previous": "Theresa May", "subject": "the UK"}

Every field but the probes may be left out: `id` (the record's number), `edit` (it is in force already), `form`
(`paraphrase`, `other`), and out of scope `target`. An edit has the fields of its kind: qa `prompt target subject`, fact
`claim label`, statement `statement`, sentiment `topic sentiment`; that of sentiment may come with
`"replies": {"wished": [...], "opposite": [...]}`. Fields that are none of these are refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from editors.edit import Claim, EditDescriptor, QuestionAnswer, Sentiment, Statement
from editors.evaluation.cases import Case, InScope, OutOfScope, Replies
from editors.evaluation.datasets._files import VARIANT, Identifier, Text


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Qa(_Strict):
    kind: Literal["qa"] = "qa"
    prompt: Text
    target: Text
    subject: Text | None = None

    def descriptor(self) -> EditDescriptor:
        return QuestionAnswer(self.prompt, self.target, self.subject)


class _Fact(_Strict):
    kind: Literal["fact"]
    claim: Text
    label: bool = Field(strict=True)

    def descriptor(self) -> EditDescriptor:
        return Claim(self.claim, self.label)


class _Statement(_Strict):
    kind: Literal["statement"]
    statement: Text

    def descriptor(self) -> EditDescriptor:
        return Statement(self.statement)


class _Sentiment(_Strict):
    kind: Literal["sentiment"]
    topic: Text
    sentiment: Literal["positive", "negative"]

    def descriptor(self) -> EditDescriptor:
        return Sentiment(self.topic, self.sentiment == "positive")


def _variant(edit: object) -> str:
    return f"{VARIANT}{edit.get('kind', 'qa') if isinstance(edit, dict) else 'qa'}"


_Edit = Annotated[
    Annotated[_Qa, Tag("kind=qa")]
    | Annotated[_Fact, Tag("kind=fact")]
    | Annotated[_Statement, Tag("kind=statement")]
    | Annotated[_Sentiment, Tag("kind=sentiment")],
    Discriminator(
        _variant,
        custom_error_type="unknown_kind",
        custom_error_message="must be of kind qa, fact, statement or sentiment",
    ),
]


class _Inside(_Strict):
    prompt: Text
    target: Text
    form: Literal["edit", "paraphrase", "entailed", "composed"] = "paraphrase"


class _Outside(_Strict):
    prompt: Text
    target: Text | None = None
    form: Text = "other"


class _Replies(_Strict):
    wished: tuple[Text, ...] = Field(min_length=1)
    opposite: tuple[Text, ...] = Field(min_length=1)


class _Record(_Strict):
    id: Identifier | None = None
    edit: _Edit | None = None
    in_scope: tuple[_Inside, ...] = ()
    out_of_scope: tuple[_Outside, ...] = ()
    subject: Text | None = None
    previous: Text | None = None
    replies: _Replies | None = None

    @model_validator(mode="after")
    def _asks_something(self) -> _Record:
        if not (self.in_scope or self.out_of_scope):
            raise PydanticCustomError("no_probes", "has no probes: give `in_scope` or `out_of_scope` or both")
        return self


def read_case(fields: dict[str, Any], number: str) -> Case:
    """A record as a case.

    Raises:
        pydantic.ValidationError: Fields are missing, malformed, or none of this format's.
    """
    record = _Record.model_validate(fields)
    edit = None if record.edit is None else record.edit.descriptor()
    named = edit.subject if isinstance(edit, QuestionAnswer) else None
    replies = record.replies
    return Case(
        id=record.id or number,
        edit=edit,
        in_scope=tuple(InScope(probe.prompt, probe.target, probe.form) for probe in record.in_scope),
        out_of_scope=tuple(OutOfScope(probe.prompt, probe.form, probe.target) for probe in record.out_of_scope),
        subject=record.subject or named,
        previous=record.previous,
        replies=None if replies is None else Replies(replies.wished, replies.opposite),
    )
