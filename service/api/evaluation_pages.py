"""How evaluations look on the wire: the domain's own names."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from service.api.edit_pages import ScopePage
from service.domain import evaluations as domain
from service.domain.edits import AnswerMode, EditKind
from service.domain.evaluations import EvaluationState, Mode


class ProbePage(BaseModel):
    """A prompt of a case."""

    prompt: str
    target: str | None
    form: str | None


class DescriptorPage(BaseModel):
    """The edit of a case."""

    prompt: str = Field(description="The question, the claim, the statement or the topic, as `kind` says.")
    target: str
    kind: EditKind
    subject: str | None
    scope: ScopePage
    answer: AnswerMode


class RepliesPage(BaseModel):
    """Replies about the topic of a sentiment edit."""

    wished: list[str]
    opposite: list[str]


class CasePage(BaseModel):
    """One edit and its probes."""

    id: str
    edit: DescriptorPage | None
    in_scope: list[ProbePage]
    out_of_scope: list[ProbePage]
    previous: str | None
    replies: RepliesPage | None


class RequestSummary(BaseModel):
    """What was asked for, without its cases."""

    suite: str | None
    edits: list[str]
    against: str
    edits_at_once: list[int]
    metrics: list[str]
    limit: int | None
    seed: int
    max_new_tokens: int


class RequestPage(RequestSummary):
    """What was asked for."""

    cases: list[CasePage]


class MeasuredPage(BaseModel):
    """One figure with its 95% bootstrap interval."""

    metric: str
    mode: Mode
    value: float
    low: float
    high: float
    cases: int = Field(description="How many it is the mean of.")
    edits: int = Field(description="How many were held at once.")
    form: str | None = Field(description="The form of probes it is restricted to; null for all.")


class FailurePage(BaseModel):
    """A probe that did not come out as it should."""

    case: str
    in_scope: bool
    form: str
    prompt: str
    expected: str = Field(description="The target in scope, the base's answer out of scope.")
    got: str
    beta: float | None
    edits: int


class ReportSummary(BaseModel):
    """What came out, in figures."""

    measured: list[MeasuredPage]
    probes: int
    failure_count: int
    revision: int = Field(description="Of the memory that was measured.")
    version: str
    seconds: float


class ReportPage(ReportSummary):
    """What came out."""

    failures: list[FailurePage] = Field(description="The first of them.")
    in_scope_betas: list[float]
    out_of_scope_betas: list[float]


class _Evaluation(BaseModel):
    id: str
    state: EvaluationState
    actor: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    done: int = Field(description="Probes judged so far, of `total`.")
    total: int
    error: str | None = Field(description="Why it failed.")


class EvaluationSummary(_Evaluation):
    """An evaluation, without what may be long."""

    request: RequestSummary
    report: ReportSummary | None


class EvaluationPage(_Evaluation):
    """An evaluation."""

    request: RequestPage
    report: ReportPage | None = Field(description="Once it is done.")


class EvaluationList(BaseModel):
    """One page of a listing, newest first."""

    data: list[EvaluationSummary]
    has_more: bool
    next: str | None = Field(description="Send it as `after` to get the next page.")


def render_evaluation(evaluation: domain.Evaluation) -> EvaluationPage:
    """An evaluation on the wire."""
    return EvaluationPage.model_validate(evaluation, from_attributes=True)


def render_page(page: domain.EvaluationPage) -> EvaluationList:
    """A page on the wire."""
    data = [EvaluationSummary.model_validate(evaluation, from_attributes=True) for evaluation in page.data]
    return EvaluationList(data=data, has_more=page.has_more, next=data[-1].id if page.has_more else None)
