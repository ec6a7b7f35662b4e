"""From the harness's records to the report of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from editors.evaluation.records import Record
from editors.evaluation.summary import failures, summarise
from service.domain.evaluations import EvaluationReport, Failure, Measured, Mode
from service.domain.versions import BASE_VERSION

FAILURES_KEPT = 200


@dataclass(frozen=True, slots=True)
class Run:
    """What was judged while so many edits were held at once."""

    edits: int
    records: Sequence[Record]


def report_of(
    runs: Sequence[Run], metrics: Sequence[str], *, revision: int, seconds: float, version: str = BASE_VERSION
) -> EvaluationReport:
    """Figures of each run, and failures and betas of them all."""
    records = [record for run in runs for record in run.records]
    failed = [_failure(record, run.edits) for run in runs for record in failures(run.records)]
    return EvaluationReport(
        measured=tuple(measured for run in runs for measured in _measured(run, metrics)),
        probes=len(records),
        failures=tuple(failed[:FAILURES_KEPT]),
        failure_count=len(failed),
        in_scope_betas=tuple(r.beta for r in records if r.in_scope and r.beta is not None),
        out_of_scope_betas=tuple(r.beta for r in records if not r.in_scope and r.beta is not None),
        revision=revision,
        version=version,
        seconds=seconds,
    )


def _measured(run: Run, metrics: Sequence[str]) -> list[Measured]:
    return [
        Measured(
            metric=figure.metric,
            mode=Mode(figure.mode),
            value=figure.estimate.value,
            low=figure.estimate.low,
            high=figure.estimate.high,
            cases=figure.estimate.cases,
            edits=run.edits,
            form=figure.form,
        )
        for figure in summarise(run.records, metrics)
    ]


def _failure(record: Record, edits: int) -> Failure:
    expected = record.target if record.in_scope else record.before
    assert expected is not None and record.after is not None, "what was not asked does not fail"
    return Failure(
        case=record.case,
        in_scope=record.in_scope,
        form=record.form,
        prompt=record.prompt,
        expected=expected,
        got=record.after,
        beta=record.beta,
        edits=edits,
    )
