"""Between evaluations as the domain knows them and the values in their rows.

Requests and reports are JSON documents with the domain's own names; they come back equal to what was put.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Row

from service.domain.evaluations import Evaluation, EvaluationReport, EvaluationRequest, EvaluationState

_REQUEST = TypeAdapter(EvaluationRequest)
_REPORT = TypeAdapter(EvaluationReport)


def number_of(evaluation_id: str) -> int | None:
    """17 for `ev17`; None for what cannot be an id."""
    match = re.fullmatch(r"ev([1-9][0-9]{0,17})", evaluation_id)
    return int(match[1]) if match else None


def request_document(request: EvaluationRequest) -> str:
    """A request as JSON.

    Raises:
        ValidationError: It could not be read back, since it holds what JSON does not.
    """
    return _document(_REQUEST, request)


def report_document(report: EvaluationReport) -> str:
    """A report as JSON; the NUL character, which a model may write and PostgreSQL cannot hold, becomes U+FFFD.

    Raises:
        ValidationError: It could not be read back, since it holds what JSON does not, such as NaN.
    """
    failures = tuple(
        replace(failure, expected=_storable(failure.expected), got=_storable(failure.got))
        for failure in report.failures
    )
    return _document(_REPORT, replace(report, failures=failures))


def evaluation_of(row: Row[Any]) -> Evaluation:
    """The evaluation in a row whose documents were selected as text."""
    return Evaluation(
        id=f"ev{row.id}",
        state=EvaluationState(row.state),
        request=_REQUEST.validate_json(row.request, strict=True),
        actor=row.actor,
        created_at=row.created_at.astimezone(UTC),
        started_at=_utc(row.started_at),
        finished_at=_utc(row.finished_at),
        done=row.done,
        total=row.total,
        report=None if row.report is None else _REPORT.validate_json(row.report, strict=True),
        error=row.error,
    )


def _document(kind: TypeAdapter[Any], value: object) -> str:
    document = kind.dump_json(value)
    kind.validate_json(document, strict=True)  # what cannot be read back must not be written
    return document.decode()


def _storable(text: str) -> str:
    return text.replace("\0", "\ufffd")


def _utc(moment: datetime | None) -> datetime | None:
    return moment and moment.astimezone(UTC)
