"""Evaluations in PostgreSQL. Outside, an evaluation's id is `ev17`; inside, it is 17."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import func, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from service.domain.evaluations import Evaluation, EvaluationPage, EvaluationReport, EvaluationRequest, EvaluationState
from service.store._documents import as_text, document, without
from service.store._evaluation_rows import PREFIX, evaluation_of, report_document, request_document
from service.store._work import Work, WorkReader, WorkWriter
from service.store.jobs import EVALUATE, queue_job
from service.store.tables import evaluations

_PLAIN = ("id", "state", "actor", "created_at", "started_at", "finished_at", "done", "total", "error")
_NOTHING_LONG: dict[str, dict[str, list[object]]] = {
    "request": {"cases": []},
    "report": {"failures": [], "in_scope_betas": [], "out_of_scope_betas": []},
}
_WORK = Work(
    table=evaluations,
    prefix=PREFIX,
    whole=(
        *(evaluations.c[name] for name in _PLAIN),
        *(as_text(evaluations.c[name], name) for name in _NOTHING_LONG),
    ),
    short=(
        *(evaluations.c[name] for name in _PLAIN),
        *(as_text(without(evaluations.c[name], empty), name) for name, empty in _NOTHING_LONG.items()),
    ),
    read=evaluation_of,
    begun={"done": 0},
)


class PostgresEvaluationReader(WorkReader[Evaluation]):
    """Reads evaluations within one transaction; see `service.domain.evaluations.EvaluationReader`."""

    def __init__(self, connection: AsyncConnection) -> None:
        super().__init__(connection, _WORK)

    async def page(self, *, limit: int, after: str | None) -> EvaluationPage:
        """Evaluations older than the id `after`, newest first, without what may be long."""
        data, has_more = await self._page(limit=limit, after=after)
        return EvaluationPage(data=data, has_more=has_more)


class PostgresEvaluationWriter(PostgresEvaluationReader, WorkWriter[Evaluation]):
    """Changes evaluations within one transaction; see `service.domain.evaluations.EvaluationWriter`."""

    async def add(self, request: EvaluationRequest, *, actor: str, total: int) -> Evaluation:
        """Keep a queued evaluation; its job is queued in the same transaction."""
        evaluation = await self._add(request, actor=actor, total=total, state=EvaluationState.QUEUED.value)
        await queue_job(self._connection, EVALUATE, evaluation.id)
        return evaluation

    async def add_done(self, request: EvaluationRequest, report: EvaluationReport, *, actor: str) -> Evaluation:
        """Keep one that was answered at once."""
        begun = func.now() - timedelta(seconds=report.seconds)
        times = {"created_at": begun, "started_at": begun, "finished_at": func.now()}
        return await self._add(request, actor=actor, **times | _finished(report))

    async def advance(self, evaluation_id: str, done: int) -> bool:
        """Note progress; False when it has been cancelled, so the work should stop."""
        return await self._note(evaluation_id, done=done)

    async def finish(self, evaluation_id: str, report: EvaluationReport) -> None:
        """Move it from running to done."""
        await self._end(evaluation_id, **_finished(report))

    async def _add(self, request: EvaluationRequest, **values: Any) -> Evaluation:
        values = {"created_at": func.now(), "done": 0, "request": document(request_document(request)), **values}
        query = insert(evaluations).values(values).returning(*_WORK.whole)
        return evaluation_of((await self._connection.execute(query)).one())


def _finished(report: EvaluationReport) -> dict[str, Any]:
    return {
        "state": EvaluationState.DONE.value,
        "report": document(report_document(report)),
        "done": report.probes,
        "total": report.probes,
    }
