"""The bodies and parameters that describe evaluations, and what they become in the domain."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_core.core_schema import ValidationInfo

from service.api.bodies import Body, Name, Text
from service.api.choices import ChosenEdits, distinct, refuse_twice
from service.api.edit_bodies import AnyDescriptorBody
from service.domain.evaluations import MEMORY, SERAC, EvaluationCase, EvaluationRequest, Probe, Replies

MOST_CASES = 10_000
_PROBES = 256
_LARGEST = 2**63 - 1


def _listed(count: object) -> object:
    return [count] if isinstance(count, int) else count


class InScopeBody(Body):
    """A prompt that should be answered by its target."""

    prompt: Text
    target: Text
    form: Name | None = Field(None, description="Such as paraphrase; the report breaks figures down by it.")

    def probe(self) -> Probe:
        """In the domain's words."""
        return Probe(prompt=self.prompt, target=self.target, form=self.form)


class OutOfScopeBody(Body):
    """A prompt that should be answered as the base does."""

    prompt: Text
    target: Text | None = Field(None, description="What is true of it, where that is known.")
    form: Name | None = Field(None, description="What makes it easy or hard, such as same subject.")

    def probe(self) -> Probe:
        """In the domain's words."""
        return Probe(prompt=self.prompt, target=self.target, form=self.form)


class RepliesBody(Body):
    """Replies about the topic of a sentiment edit."""

    wished: list[Text] = Field(min_length=1, max_length=_PROBES, description="In the mood that the edit asks for.")
    opposite: list[Text] = Field(min_length=1, max_length=_PROBES, description="In the other.")

    def replies(self) -> Replies:
        """In the domain's words."""
        return Replies(wished=tuple(self.wished), opposite=tuple(self.opposite))


class CaseBody(Body):
    """One edit and its probes."""

    id: Name | None = Field(None, description='Its name in the report; "case 1", "case 2", ... when left out.')
    edit: AnyDescriptorBody | None = Field(None, description="As in POST /edits; none when it is in force already.")
    in_scope: list[InScopeBody] = Field([], max_length=_PROBES)
    out_of_scope: list[OutOfScopeBody] = Field([], max_length=_PROBES)
    previous: Text | None = Field(None, description="The answer before the edit, for the scores that compare with it.")
    replies: RepliesBody | None = Field(None, description="Of a sentiment edit, for its scores.")

    @model_validator(mode="after")
    def _something_to_ask(self) -> CaseBody:
        if not self.in_scope and not self.out_of_scope:
            raise PydanticCustomError("no_probe", "must hold a probe, in `in_scope` or in `out_of_scope`")
        return self

    def case(self, place: int) -> EvaluationCase:
        """In the domain's words; `place` counts from 1."""
        return EvaluationCase(
            id=self.id or f"case {place}",
            edit=None if self.edit is None else self.edit.descriptor(),
            in_scope=tuple(probe.probe() for probe in self.in_scope),
            out_of_scope=tuple(probe.probe() for probe in self.out_of_scope),
            previous=self.previous,
            replies=None if self.replies is None else self.replies.replies(),
        )


class EvaluateBody(Body):
    """What to measure: cases, a suite, or edits in force."""

    cases: list[CaseBody] | None = Field(None, min_length=1, max_length=MOST_CASES)
    suite: Name | None = Field(None, description="The name of a suite.")
    edits: ChosenEdits | None = Field(None, description="`active` for all edits in force, or the ids of some.")
    against: Name = Field(
        MEMORY, description="`memory` as it is, `base` alone, `serac`, a memory made for the run, or a version alone."
    )
    edits_at_once: Annotated[
        list[Annotated[int, Field(ge=1, le=MOST_CASES)]],
        Field(min_length=1, max_length=16),
        AfterValidator(distinct),
        BeforeValidator(_listed, json_schema_input_type=int | list[int]),
    ] = Field([1], description="How many cases' edits are held together; several numbers give a curve.")
    metrics: Annotated[list[Name], Field(max_length=64), AfterValidator(distinct)] = Field(
        [], description="Those that the cases have the fields for when empty."
    )
    limit: int | None = Field(None, ge=1, le=_LARGEST, description="At most this many cases of the suite.")
    seed: int = Field(0, ge=0, le=_LARGEST, description="Draws the cases of a limited suite.")
    max_new_tokens: int = Field(32, ge=1, le=1024)

    @field_validator("cases")
    @classmethod
    def _one_name_for_each(cls, cases: list[CaseBody] | None) -> list[CaseBody] | None:
        names = [case.id or f"case {place}" for place, case in enumerate(cases or (), start=1)]
        refuse_twice(names, "must not hold two cases of the name {item}")
        return cases

    @field_validator("edits_at_once")
    @classmethod
    def _for_edits_of_its_own(cls, counts: list[int], info: ValidationInfo) -> list[int]:
        against = info.data.get("against")
        if against not in {SERAC, None}:
            raise PydanticCustomError(
                "edits_at_once", "has no meaning against {against}, which holds what it holds", {"against": against}
            )
        return counts

    @field_validator("limit")
    @classmethod
    def _of_a_suite(cls, limit: int | None, info: ValidationInfo) -> int | None:
        if limit is not None and info.data.get("suite", "") is None:
            raise PydanticCustomError("limit", "has a meaning for a `suite` only")
        return limit

    @model_validator(mode="after")
    def _one_source(self) -> EvaluateBody:
        if [self.cases, self.suite, self.edits].count(None) != 2:
            raise PydanticCustomError("one_source", "must hold exactly one of `cases`, `suite` and `edits`")
        return self

    def request(self) -> EvaluationRequest:
        """In the domain's words."""
        return EvaluationRequest(
            cases=tuple(case.case(place) for place, case in enumerate(self.cases or (), start=1)),
            suite=self.suite,
            edits=tuple(self.edits or ()),
            against=self.against,
            edits_at_once=tuple(self.edits_at_once),
            metrics=tuple(self.metrics),
            limit=self.limit,
            seed=self.seed,
            max_new_tokens=self.max_new_tokens,
        )


class EvaluationQuery(BaseModel):
    """Which evaluations to list, newest first."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(50, ge=1, le=200)
    after: str | None = Field(None, pattern="^ev[1-9][0-9]{0,17}$", description="The `next` of the page before.")
