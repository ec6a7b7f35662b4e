"""Evaluations in PostgreSQL. Outside, an evaluation's id is `ev17`; inside, it is 17."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Label, Row, Text, Update, cast, false, func, insert, literal, select, true, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from service.domain.evaluations import Evaluation, EvaluationPage, EvaluationReport, EvaluationRequest, EvaluationState
from service.store._evaluation_rows import evaluation_of, number_of, report_document, request_document
from service.store.jobs import EVALUATE, queue_job
from service.store.tables import evaluations

_PLAIN = ("id", "state", "actor", "created_at", "started_at", "finished_at", "done", "total", "error")
_NOTHING_LONG: dict[str, dict[str, list[object]]] = {
    "request": {"cases": []},
    "report": {"failures": [], "in_scope_betas": [], "out_of_scope_betas": []},
}
_UNDER_WAY = evaluations.c.state.in_([EvaluationState.QUEUED.value, EvaluationState.RUNNING.value])
_RUNNING = evaluations.c.state == EvaluationState.RUNNING.value


def _text(document: ColumnElement[Any], name: str) -> Label[str]:
    return cast(document, Text).label(name)


def _document(text: str) -> ColumnElement[Any]:
    return cast(literal(text, Text), JSONB)


# The documents come as text, to be read by pydantic alone.
_WHOLE = (
    *(evaluations.c[name] for name in _PLAIN),
    *(_text(evaluations.c[name], name) for name in _NOTHING_LONG),
)
_SHORT = (
    *(evaluations.c[name] for name in _PLAIN),
    *(_text(evaluations.c[name].concat(literal(empty, JSONB)), name) for name, empty in _NOTHING_LONG.items()),
)


class PostgresEvaluationReader:
    """Reads evaluations within one transaction; see `service.domain.evaluations.EvaluationReader`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def get(self, evaluation_id: str) -> Evaluation | None:
        """The evaluation of that id, or None."""
        query = select(*_WHOLE).where(evaluations.c.id == number_of(evaluation_id))
        row = (await self._connection.execute(query)).one_or_none()
        return None if row is None else evaluation_of(row)

    async def page(self, *, limit: int, after: str | None) -> EvaluationPage:
        """Evaluations older than the id `after`, newest first, without what may be long."""
        query = select(*_SHORT).where(_older_than(after)).order_by(evaluations.c.id.desc()).limit(limit + 1)
        rows = (await self._connection.execute(query)).all()
        return EvaluationPage(data=tuple(evaluation_of(row) for row in rows[:limit]), has_more=len(rows) > limit)


class PostgresEvaluationWriter(PostgresEvaluationReader):
    """Changes evaluations within one transaction; see `service.domain.evaluations.EvaluationWriter`.

    Each move names the states that it starts from, so of two that meet the first holds.
    """

    async def add(self, request: EvaluationRequest, *, actor: str, total: int) -> Evaluation:
        """Keep a queued evaluation; its job is queued in the same transaction."""
        evaluation = await self._add(request, actor=actor, total=total, state=EvaluationState.QUEUED.value)
        await queue_job(self._connection, EVALUATE, evaluation.id)
        return evaluation

    async def add_done(self, request: EvaluationRequest, report: EvaluationReport, *, actor: str) -> Evaluation:
        """Keep one that was answered at once."""
        begun = func.now() - timedelta(seconds=report.seconds)
        times = {"created_at": begun, "started_at": begun}
        return await self._add(request, actor=actor, **times | _finished(report))

    async def start(self, evaluation_id: str) -> Evaluation | None:
        """Move it from queued or running (a worker that was killed) to running; None when it has ended meanwhile."""
        values = {"state": EvaluationState.RUNNING.value, "started_at": func.now(), "done": 0}
        row = await self._move(evaluation_id, _UNDER_WAY, values)
        return None if row is None else evaluation_of(row)

    async def advance(self, evaluation_id: str, done: int) -> bool:
        """Note progress; False when it has been cancelled, so the work should stop."""
        query = _update(evaluation_id, _RUNNING).values(done=done)
        return (await self._connection.execute(query)).rowcount > 0

    async def finish(self, evaluation_id: str, report: EvaluationReport) -> None:
        """Move it from running to done."""
        await self._connection.execute(_update(evaluation_id, _RUNNING).values(_finished(report)))

    async def fail(self, evaluation_id: str, error: str) -> None:
        """Move it to failed unless it has ended."""
        values = {"state": EvaluationState.FAILED.value, "error": error, "finished_at": func.now()}
        await self._connection.execute(_update(evaluation_id, _UNDER_WAY).values(values))

    async def cancel(self, evaluation_id: str) -> Evaluation | None:
        """Move it to cancelled unless it has ended; what it is then, or None when there is no such evaluation."""
        values = {"state": EvaluationState.CANCELLED.value, "finished_at": func.now()}
        row = await self._move(evaluation_id, _UNDER_WAY, values)
        return await self.get(evaluation_id) if row is None else evaluation_of(row)

    async def _add(self, request: EvaluationRequest, **values: Any) -> Evaluation:
        values = {"created_at": func.now(), "done": 0, "request": _document(request_document(request)), **values}
        row = (await self._connection.execute(insert(evaluations).values(values).returning(*_WHOLE))).one()
        return evaluation_of(row)

    async def _move(self, evaluation_id: str, state: ColumnElement[bool], values: dict[str, Any]) -> Row[Any] | None:
        query = _update(evaluation_id, state).values(values).returning(*_WHOLE)
        return (await self._connection.execute(query)).one_or_none()


def _update(evaluation_id: str, state: ColumnElement[bool]) -> Update:
    return update(evaluations).where(evaluations.c.id == number_of(evaluation_id), state)


def _finished(report: EvaluationReport) -> dict[str, Any]:
    return {
        "state": EvaluationState.DONE.value,
        "report": _document(report_document(report)),
        "finished_at": func.now(),
        "done": report.probes,
        "total": report.probes,
    }


def _older_than(evaluation_id: str | None) -> ColumnElement[bool]:
    if evaluation_id is None:
        return true()
    number = number_of(evaluation_id)
    return false() if number is None else evaluations.c.id < number
