"""Between evaluations as the domain knows them and the values in their rows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Row

from service.domain.evaluations import Evaluation, EvaluationReport, EvaluationRequest, EvaluationState, Failure
from service.store._documents import dumped, storable, utc

PREFIX = "ev"

_REQUEST = TypeAdapter(EvaluationRequest)
_REPORT = TypeAdapter(EvaluationReport)


def request_document(request: EvaluationRequest) -> str:
    """A request as JSON.

    Raises:
        ValidationError: It could not be read back, since it holds what JSON does not.
    """
    return dumped(_REQUEST, request)


def report_document(report: EvaluationReport) -> str:
    """A report as JSON; the NUL character becomes U+FFFD.

    Raises:
        ValidationError: It could not be read back, since it holds what JSON does not, such as NaN.
    """
    return dumped(_REPORT, replace(report, failures=storable_failures(report.failures)))


def storable_failures(failures: tuple[Failure, ...]) -> tuple[Failure, ...]:
    """The failures without the NUL characters that a model may have written."""
    return tuple(
        replace(failure, expected=storable(failure.expected), got=storable(failure.got)) for failure in failures
    )


def evaluation_of(row: Row[Any]) -> Evaluation:
    """The evaluation in a row whose documents were selected as text."""
    return Evaluation(
        id=f"{PREFIX}{row.id}",
        state=EvaluationState(row.state),
        request=_REQUEST.validate_json(row.request, strict=True),
        actor=row.actor,
        created_at=row.created_at.astimezone(UTC),
        started_at=utc(row.started_at),
        finished_at=utc(row.finished_at),
        done=row.done,
        total=row.total,
        report=None if row.report is None else _REPORT.validate_json(row.report, strict=True),
        error=row.error,
    )
