"""Evaluations: did the edits work, and did they break anything?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from service.domain.edits import Descriptor

MEMORY, BASE, SERAC = "memory", "base", "serac"
"""What an evaluation can be against: the live memory as it is; the base alone; or a memory of its own, made for the
run, that holds the edits of the cases and nothing else."""


class EvaluationState(StrEnum):
    """Where an evaluation stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self in {EvaluationState.DONE, EvaluationState.FAILED, EvaluationState.CANCELLED}


class Mode(StrEnum):
    """How answers are had."""

    GENERATED = "generated"
    """Freely, as a user meets them: the headline."""
    TEACHER_FORCED = "teacher_forced"
    """Token by token with the right answer so far given: what most papers report, and flattering."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A prompt of a case.

    Attributes:
        target: The right answer; needed in scope, optional out of scope.
        form: Such as `paraphrase` or `same subject`; the report breaks figures down by it.
    """

    prompt: str
    target: str | None = None
    form: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Replies:
    """Replies about the topic of a sentiment edit, in the mood wished for and in the other."""

    wished: tuple[str, ...]
    opposite: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationCase:
    """One edit and its probes.

    Attributes:
        edit: To be applied for the run (against `serac` or a weight method); None when it is in force already.
        previous: The answer before the edit, for ROME's scores.
        replies: Of a sentiment edit, for its scores.
    """

    id: str
    edit: Descriptor | None = None
    in_scope: tuple[Probe, ...] = ()
    out_of_scope: tuple[Probe, ...] = ()
    previous: str | None = None
    replies: Replies | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRequest:
    """What to measure. Exactly one of `cases`, `suite` and `edits` is given.

    Attributes:
        cases: Inline cases.
        suite: The name of a suite.
        edits: Ids of edits in force, or `("active",)` for all: each edit's prompt and in-scope examples should give
            its target, its out-of-scope examples and a probe set should answer as the base does.
        against: `memory`, `base`, `serac`, or a version such as `v1`: its weights alone.
        edits_at_once: Against `serac`: how many cases' edits are held together; several numbers give a curve.
        metrics: Names of metrics; those that the cases have the fields for when empty.
        limit: At most this many cases of a suite, drawn with `seed`.
    """

    cases: tuple[EvaluationCase, ...] = ()
    suite: str | None = None
    edits: tuple[str, ...] = ()
    against: str = MEMORY
    edits_at_once: tuple[int, ...] = (1,)
    metrics: tuple[str, ...] = ()
    limit: int | None = None
    seed: int = 0
    max_new_tokens: int = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One figure with its 95% bootstrap interval.

    Attributes:
        metric: Its name, as in docs/evaluation.md.
        form: The form of probes it is restricted to; None for all.
        edits: How many edits were held at once.
        cases: How many cases it is the mean of.
    """

    metric: str
    mode: Mode
    value: float
    low: float
    high: float
    cases: int
    edits: int
    form: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A probe that did not come out as it should: in scope another answer than the target, out of scope a changed one.

    Attributes:
        expected: The target in scope; the base's answer out of scope.
        got: What was answered.
        beta: The scope classifier's, where a memory decided.
    """

    case: str
    in_scope: bool
    form: str
    prompt: str
    expected: str
    got: str
    beta: float | None = None
    edits: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationReport:
    """What came out.

    Attributes:
        probes: How many prompts were judged.
        failures: The first of them; `failure_count` says how many there were.
        in_scope_betas: Of every in-scope probe that a memory decided on, for the histogram; likewise out of scope.
        revision: Of the memory that was measured.
    """

    measured: tuple[Measured, ...]
    probes: int
    failures: tuple[Failure, ...]
    failure_count: int
    in_scope_betas: tuple[float, ...]
    out_of_scope_betas: tuple[float, ...]
    revision: int
    version: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """An evaluation as it is kept.

    Attributes:
        id: Its name, such as `ev17`.
        done: Probes judged so far, of `total`.
        report: Once it is done.
        error: Why it failed.
    """

    id: str
    state: EvaluationState
    request: EvaluationRequest
    actor: str
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    done: int = 0
    total: int = 0
    report: EvaluationReport | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationPage:
    """One page of a listing, newest first, without what may be long: `request.cases`, `report.failures`, the betas."""

    data: tuple[Evaluation, ...]
    has_more: bool


class EvaluationReader(Protocol):
    """Reads evaluations within one transaction."""

    async def get(self, evaluation_id: str) -> Evaluation | None:
        """The evaluation of that id, or None."""
        ...

    async def page(self, *, limit: int, after: str | None) -> EvaluationPage:
        """Evaluations older than the id `after`, newest first, as `EvaluationPage` says."""
        ...


class EvaluationWriter(EvaluationReader, Protocol):
    """Changes evaluations. They alter no answer, so they take no revision."""

    async def add(self, request: EvaluationRequest, *, actor: str, total: int) -> Evaluation:
        """Keep a queued evaluation; its job is queued in the same transaction."""
        ...

    async def add_done(self, request: EvaluationRequest, report: EvaluationReport, *, actor: str) -> Evaluation:
        """Keep one that was answered at once."""
        ...

    async def start(self, evaluation_id: str) -> Evaluation | None:
        """Move it from queued or running (a worker that was killed) to running; None when it has ended meanwhile."""
        ...

    async def advance(self, evaluation_id: str, done: int) -> bool:
        """Note progress; False when it has been cancelled, so the work should stop."""
        ...

    async def finish(self, evaluation_id: str, report: EvaluationReport) -> None:
        """Move it from running to done."""
        ...

    async def fail(self, evaluation_id: str, error: str) -> None:
        """Move it to failed unless it has ended."""
        ...

    async def cancel(self, evaluation_id: str) -> Evaluation | None:
        """Move it to cancelled unless it has ended; what it is then, or None when there is no such evaluation."""
        ...
