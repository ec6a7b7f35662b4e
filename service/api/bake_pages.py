"""How bakes and versions look on the wire: the domain's own names."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from service.actions.checkpoints import Listed, Shown
from service.api.evaluation_pages import FailurePage, MeasuredPage
from service.domain import bakes
from service.domain.bake_plans import BakePlan
from service.domain.bakes import BakeState, Stage
from service.domain.serving import Serving
from service.domain.versions import Version


class GatePage(BaseModel):
    """What a version must keep to."""

    edit_success: float
    drawdown: float
    relative_norm: float
    max_new_tokens: int


class BakeRequestPage(BaseModel):
    """What was asked for, with every setting of the method."""

    method: str
    edits: list[str]
    config: dict[str, Any]
    gate: GatePage
    seed: int


class BasePage(BaseModel):
    """A base model."""

    name: str
    fingerprint: str = Field(description="SHA-256 over its config and tensors, in hex; empty where they are elsewhere.")


class BakedEditPage(BaseModel):
    """An edit as it was when it was baked."""

    id: str
    revision: int


class FindingPage(BaseModel):
    """One condition of the gate, and how it came out."""

    measure: str
    value: float
    bound: float
    met: bool


class SitePage(BaseModel):
    """What the delta does to one weight."""

    site: str
    rank: int | None = Field(description="Of the change; null where it is dense.")
    relative_norm: float


class BakeReportSummary(BaseModel):
    """What came out, in figures."""

    refusal: str | None = Field(description="Why there is no version; null when the gate was met.")
    findings: list[FindingPage]
    measured: list[MeasuredPage]
    probes: int
    failure_count: int
    sites: list[SitePage]
    size: int | None = Field(description="Of the delta, in bytes.")
    base_size: int = Field(description="Of the base's tensors, in bytes.")
    seconds: dict[str, float] = Field(description="How long each stage took.")


class BakeReportPage(BakeReportSummary):
    """What came out."""

    failures: list[FailurePage] = Field(description="The first of them.")


class BakeSummary(BaseModel):
    """A bake, without what may be long."""

    id: str
    state: BakeState
    stage: Stage | None
    percent: int = Field(description="Of the stage.")
    version: str | None = Field(description="The version that it made, once it is done.")
    error: str | None = Field(description="Why it failed.")
    actor: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    request: BakeRequestPage
    base: BasePage
    parent: str = Field(description="The version that served when it was asked for.")
    edits: list[BakedEditPage]
    report: BakeReportSummary | None


class BakePage(BakeSummary):
    """A bake."""

    report: BakeReportPage | None = Field(description="Once it is done or refused.")


class BakeList(BaseModel):
    """One page of a listing, newest first."""

    data: list[BakeSummary]
    has_more: bool
    next: str | None = Field(description="Send it as `after` to get the next page.")


class FitPage(BaseModel):
    """Whether a method is for so many edits."""

    method: str
    fits: bool
    most_edits: int | None = Field(description="Up to which it is known to hold; null where no number is known.")
    why: str


class LeftOutPage(BaseModel):
    """An edit in force that cannot be baked."""

    id: str
    why: str


class PlanPage(BaseModel):
    """What a bake would do."""

    request: BakeRequestPage
    base: BasePage
    edits: list[BakedEditPage]
    left_out: list[LeftOutPage]
    advised: str = Field(description="The first method that fits so many edits.")
    fits: list[FitPage]
    passes: int = Field(description="About how often the model would be run to compute the delta.")
    probes: int = Field(description="How many prompts would be asked, of the base and of the edited model.")
    seconds: float | None = Field(description="How long, by the newest bake with this method; null without one.")


class ArtifactPage(BaseModel):
    """The file of a version's delta."""

    digest: str = Field(description="SHA-256 of its content, in hex.")
    size: int = Field(description="In bytes.")


class VersionSummary(BaseModel):
    """A version, without what may be long. Of v0, the base, all but `id` and `base` is empty."""

    id: str
    base: BasePage
    parent: str | None
    edits: list[BakedEditPage]
    method: str | None
    config: dict[str, Any]
    actor: str | None
    created_at: datetime | None
    revision: int
    bake: str | None
    artifact: ArtifactPage | None
    serves: int = Field(0, description="How many percent of the questions it answers now.")
    report: BakeReportSummary | None


class OutdatedPage(BaseModel):
    """An edit in a version's weights that is not in force as it was baked."""

    id: str
    why: str = Field(description="retracted, expired, or changed.")


class VersionPage(VersionSummary):
    """A version."""

    report: BakeReportPage | None
    outdated: list[OutdatedPage] = Field(
        description="Edits in its weights that are no longer in force as they were baked: bake again to be rid of them."
    )
    damage: str | None = Field(description="What is wrong with its weights; null when they are whole.")


class ServingPage(BaseModel):
    """What is served."""

    active: str = Field(description="The version that answers.")
    canary: str | None = Field(description="The version that answers a share of the questions in its place.")
    percent: int = Field(description="That share; 0 without a canary.")
    revision: int = Field(description="Of the change that made it so; 0 from the beginning.")


class VersionList(BaseModel):
    """One page of a listing, newest first, and what is served."""

    serving: ServingPage
    data: list[VersionSummary]
    has_more: bool
    next: str | None = Field(description="Send it as `after` to get the next page.")


def render_bake(bake: bakes.Bake) -> BakePage:
    """A bake on the wire."""
    return BakePage.model_validate(bake, from_attributes=True)


def render_bakes(page: bakes.BakePage) -> BakeList:
    """A page of bakes on the wire."""
    data = [BakeSummary.model_validate(bake, from_attributes=True) for bake in page.data]
    return BakeList(data=data, has_more=page.has_more, next=data[-1].id if page.has_more else None)


def render_plan(plan: BakePlan) -> PlanPage:
    """A plan on the wire."""
    return PlanPage.model_validate(plan, from_attributes=True)


def render_version(shown: Shown) -> VersionPage:
    """A version on the wire."""
    fields = dict(_summary(shown.version, shown.serving))
    fields["report"] = shown.version.report and BakeReportPage.model_validate(
        shown.version.report, from_attributes=True
    )
    outdated = [OutdatedPage.model_validate(one, from_attributes=True) for one in shown.outdated]
    return VersionPage(**fields, outdated=outdated, damage=shown.damage)


def render_versions(listed: Listed) -> VersionList:
    """A page of versions on the wire."""
    data = [_summary(version, listed.serving) for version in listed.page.data]
    following = data[-1].id if listed.page.has_more else None
    serving = render_serving(listed.serving)
    return VersionList(serving=serving, data=data, has_more=listed.page.has_more, next=following)


def render_serving(serving: Serving) -> ServingPage:
    """What is served on the wire."""
    return ServingPage.model_validate(serving, from_attributes=True)


def _summary(version: Version, serving: Serving) -> VersionSummary:
    summary = VersionSummary.model_validate(version, from_attributes=True)
    return summary.model_copy(update={"serves": serving.share(version.id)})
