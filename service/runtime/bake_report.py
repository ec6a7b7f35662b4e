"""From a delta and the harness's records to the report of a bake."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import fields

from editors.delta import Delta, LowRank
from editors.evaluation.cases import Case
from editors.evaluation.metrics import METRICS
from editors.evaluation.records import Record
from editors.evaluation.subject import Scored
from editors.model.loading import BaseModel
from service.domain.bakes import BakeReport, Finding, Gate, SiteChange
from service.domain.evaluations import Measured, Mode
from service.runtime.evaluation_report import Run, report_of

EDIT_SUCCESS, DRAWDOWN, RELATIVE_NORM = "edit_success", "drawdown", "relative_norm"


def metrics_for(cases: Sequence[Case]) -> tuple[str, ...]:
    """Every metric that the cases have the fields for."""
    return tuple(name for name, metric in METRICS.items() if metric.lacking(cases) is None)


def bake_report(
    base: BaseModel,
    delta: Delta,
    records: Sequence[Record],
    gate: Gate,
    *,
    metrics: Sequence[str],
    edits: int,
    size: int,
    seconds: dict[str, float],
) -> BakeReport:
    """What a delta does, held against the gate.

    Args:
        base: What it was made for.
        delta: With finite numbers.
        records: One for each probe.
        gate: What it must keep to.
        metrics: Names of those to compute.
        edits: How many it holds.
        size: Of its file, in bytes.
        seconds: How long each stage took.
    """
    evaluation = report_of([Run(edits, records)], metrics, revision=0, seconds=0.0)
    sites = site_changes(base, delta)
    findings = tuple(_findings(evaluation.measured, sites, gate))
    return BakeReport(
        refusal=_refusal(findings),
        findings=findings,
        measured=evaluation.measured,
        probes=evaluation.probes,
        failures=evaluation.failures,
        failure_count=evaluation.failure_count,
        sites=sites,
        size=size,
        base_size=base_size(base),
        seconds=seconds,
    )


def site_changes(base: BaseModel, delta: Delta) -> tuple[SiteChange, ...]:
    """What a delta does to each weight."""
    norms = delta.relative_norms(base)
    return tuple(
        SiteChange(site=site, rank=change.rank if isinstance(change, LowRank) else None, relative_norm=norms[site])
        for site, change in delta.changes.items()
    )


def base_size(base: BaseModel) -> int:
    """Bytes of the base's tensors; tied ones count once."""
    return sum(parameter.numel() * parameter.element_size() for parameter in base.model.parameters())


def is_defined(records: Sequence[Record]) -> bool:
    """Whether every number that the edited model gave is."""
    return all(math.isfinite(number) for record in records for number in _numbers(record))


def _numbers(record: Record) -> Iterator[float]:
    for field in fields(record):
        value = getattr(record, field.name)
        if isinstance(value, Scored):
            yield from value.log_probabilities


def _findings(measured: Sequence[Measured], sites: Sequence[SiteChange], gate: Gate) -> Iterator[Finding]:
    success, drawdown = _generated(measured, EDIT_SUCCESS), _generated(measured, DRAWDOWN)
    norm = max((site.relative_norm for site in sites), default=0.0)
    if success is not None:
        yield Finding(measure=EDIT_SUCCESS, value=success, bound=gate.edit_success, met=success >= gate.edit_success)
    if drawdown is not None:
        yield Finding(measure=DRAWDOWN, value=drawdown, bound=gate.drawdown, met=drawdown <= gate.drawdown)
    yield Finding(measure=RELATIVE_NORM, value=norm, bound=gate.relative_norm, met=norm <= gate.relative_norm)


def _generated(measured: Sequence[Measured], metric: str) -> float | None:
    """The figure over all probes, answered freely."""
    wanted = (metric, Mode.GENERATED, None)
    return next((one.value for one in measured if (one.metric, one.mode, one.form) == wanted), None)


def _refusal(findings: Sequence[Finding]) -> str | None:
    unmet = [
        f"{finding.measure} is {finding.value:.3g} and must be {_side(finding.measure)} {finding.bound:.3g}"
        for finding in findings
        if not finding.met
    ]
    return f"{'; '.join(unmet)}." if unmet else None


def _side(measure: str) -> str:
    return "at least" if measure == EDIT_SUCCESS else "at most"
