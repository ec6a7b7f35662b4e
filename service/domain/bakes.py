"""Bakes: jobs that turn edits into a version, and measure it before anyone can see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from service.domain.artifacts import Artifact
from service.domain.evaluations import Failure, Measured
from service.domain.versions import BakedEdit, Base

EVERY_EDIT = ("active",)
"""In place of ids: every edit in force that can be baked."""


class BakeState(StrEnum):
    """Where a bake stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    """The version is written."""
    REFUSED = "refused"
    """The gate was not met, and the report says by what; there is no version."""
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self not in {BakeState.QUEUED, BakeState.RUNNING}


class Stage(StrEnum):
    """What a running bake is doing."""

    PREPARING = "preparing"
    """Computing the delta."""
    MEASURING = "measuring"
    """Asking the base and the edited model."""
    STORING = "storing"
    """Keeping the artifact and writing the version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What a version must keep to.

    Attributes:
        edit_success: Least ES over the prompts of the edits and their in-scope examples, answered freely.
        drawdown: Most DD over a probe set and the edits' out-of-scope examples, answered freely.
        relative_norm: Most ||change|| / ||weight|| of any weight, in Frobenius norms.
        max_new_tokens: Of each answer.
    """

    edit_success: float = 0.9
    drawdown: float = 0.1
    relative_norm: float = 1.0
    max_new_tokens: int = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class BakeRequest:
    """What to bake, and how.

    Attributes:
        method: The weight editor's name.
        edits: Ids of edits in force, or `EVERY_EDIT`.
        config: The method's settings; what is left out takes its default.
        seed: Draws the probe set.
    """

    method: str
    edits: tuple[str, ...] = EVERY_EDIT
    config: dict[str, Any] = field(default_factory=dict)
    gate: Gate = Gate()
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One condition of the gate, and how it came out.

    Attributes:
        measure: Its name in the gate.
        value: What was measured.
        bound: What the gate allows: the least ES, the most of anything else.
    """

    measure: str
    value: float
    bound: float
    met: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteChange:
    """What the delta does to one weight.

    Attributes:
        site: The weight's name.
        rank: Of the change; None where it is dense.
        relative_norm: ||change|| / ||weight||, in Frobenius norms.
    """

    site: str
    rank: int | None
    relative_norm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BakeReport:
    """What came out.

    Attributes:
        refusal: Why there is no version, in a sentence; None when the gate was met.
        findings: One for each condition of the gate; none where the method itself gave up, or made the model undefined.
        measured: Every figure, as an evaluation gives them.
        probes: How many prompts were judged.
        failures: The first of the probes that came out wrong; `failure_count` says how many there were.
        sites: The weights that the delta changes.
        size: Of the delta, in bytes; None where there is none.
        base_size: Of the base's tensors, in bytes.
        seconds: How long each stage took, by its name.
    """

    refusal: str | None
    findings: tuple[Finding, ...] = ()
    measured: tuple[Measured, ...] = ()
    probes: int = 0
    failures: tuple[Failure, ...] = ()
    failure_count: int = 0
    sites: tuple[SiteChange, ...] = ()
    size: int | None = None
    base_size: int
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBake:
    """A bake to queue.

    Attributes:
        request: With the method's whole config.
        parent: The version that serves.
    """

    request: BakeRequest
    base: Base
    edits: tuple[BakedEdit, ...]
    parent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bake:
    """A bake as it is kept.

    Attributes:
        id: Its name, such as `b17`.
        stage: While it runs.
        percent: Of the stage, from 0 to 100.
        report: Once it is done or refused.
        version: The version that it made, once it is done.
        error: Why it failed.
    """

    id: str
    state: BakeState
    request: BakeRequest
    base: Base
    edits: tuple[BakedEdit, ...]
    parent: str
    actor: str
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    stage: Stage | None = None
    percent: int = 0
    report: BakeReport | None = None
    version: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BakePage:
    """One page of a listing, newest first, without the failures of their reports."""

    data: tuple[Bake, ...]
    has_more: bool


class BakeReader(Protocol):
    """Reads bakes within one transaction."""

    async def get(self, bake_id: str) -> Bake | None:
        """The bake of that id, or None."""
        ...

    async def page(self, *, limit: int, after: str | None) -> BakePage:
        """Bakes older than the id `after`, newest first."""
        ...

    async def newest_measured(self, method: str) -> Bake | None:
        """The newest bake with a method that was measured, or None."""
        ...


class BakeWriter(BakeReader, Protocol):
    """Changes bakes that have not ended. Each move names the states it starts from, so of two the first holds."""

    async def add(self, new: NewBake, *, actor: str) -> Bake:
        """Keep a queued bake; its job is queued in the same transaction."""
        ...

    async def start(self, bake_id: str) -> Bake | None:
        """Move it from queued or running (a worker that was killed) to running; None when it has ended meanwhile."""
        ...

    async def advance(self, bake_id: str, stage: Stage, percent: int) -> bool:
        """Note progress; False when it has been cancelled, so the work should stop."""
        ...

    async def claim(self, bake_id: str, artifact: Artifact) -> bool:
        """Name the artifact that is to be put after this transaction; False when it has been cancelled.

        Waits for a collection that has begun, and is known to every later one.
        """
        ...

    async def refuse(self, bake_id: str, report: BakeReport) -> None:
        """Move it from running to refused."""
        ...

    async def finish(self, bake_id: str, report: BakeReport, *, version: str) -> bool:
        """Move it from running to done; False when it has been cancelled, so the transaction must be undone."""
        ...

    async def fail(self, bake_id: str, error: str) -> None:
        """Move it to failed unless it has ended."""
        ...

    async def cancel(self, bake_id: str) -> Bake | None:
        """Move it to cancelled unless it has ended; what it is then, or None when there is no such bake."""
        ...

    async def artifacts(self) -> tuple[frozenset[str], frozenset[str]]:
        """The digests that versions name, and those that running bakes claim.

        Until the transaction ends, nothing more can be claimed.
        """
        ...
