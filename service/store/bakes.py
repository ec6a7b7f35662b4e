"""Bakes in PostgreSQL. Outside, a bake's id is `b17`; inside, it is 17."""

from __future__ import annotations

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from service.domain.artifacts import Artifact
from service.domain.bakes import Bake, BakePage, BakeReport, BakeState, NewBake, Stage
from service.store._bake_rows import (
    BAKE_PREFIX,
    bake_of,
    base_values,
    edits_document,
    report_document,
    request_document,
    version_number,
)
from service.store._documents import as_text, document, without
from service.store._work import Work, WorkReader, WorkWriter
from service.store.jobs import BAKE, queue_job
from service.store.tables import bakes, versions

ARTIFACT_LOCK = 0x6172746966
"""The advisory lock of artifacts, "artif" in ASCII: shared by those who claim one, alone for who collects."""

_PLAIN = (
    *("id", "state", "base_name", "base_fingerprint", "parent", "actor", "created_at", "started_at", "finished_at"),
    *("stage", "percent", "version", "error"),
)
_COMMON = (*(bakes.c[name] for name in _PLAIN), as_text(bakes.c.request, "request"), as_text(bakes.c.edits, "edits"))
_WORK = Work(
    table=bakes,
    prefix=BAKE_PREFIX,
    whole=(*_COMMON, as_text(bakes.c.report, "report")),
    short=(*_COMMON, as_text(without(bakes.c.report, {"failures": []}), "report")),
    read=bake_of,
    begun={"stage": None, "percent": 0},  # what it has claimed stays so: its first worker may be slow, and not dead
)


class PostgresBakeReader(WorkReader[Bake]):
    """Reads bakes within one transaction; see `service.domain.bakes.BakeReader`."""

    def __init__(self, connection: AsyncConnection) -> None:
        super().__init__(connection, _WORK)

    async def page(self, *, limit: int, after: str | None) -> BakePage:
        """Bakes older than the id `after`, newest first, without the failures of their reports."""
        data, has_more = await self._page(limit=limit, after=after)
        return BakePage(data=data, has_more=has_more)

    async def newest_measured(self, method: str) -> Bake | None:
        """The newest bake with a method that was measured, or None."""
        measured = bakes.c.report["probes"].as_integer() > 0
        query = select(*_WORK.short).where(bakes.c.request["method"].astext == method, measured)
        row = (await self._connection.execute(query.order_by(bakes.c.id.desc()).limit(1))).one_or_none()
        return None if row is None else bake_of(row)


class PostgresBakeWriter(PostgresBakeReader, WorkWriter[Bake]):
    """Changes bakes within one transaction; see `service.domain.bakes.BakeWriter`."""

    async def add(self, new: NewBake, *, actor: str) -> Bake:
        """Keep a queued bake; its job is queued in the same transaction, and waits for other bakes to end."""
        values = {
            "state": BakeState.QUEUED.value,
            "request": document(request_document(new.request)),
            "edits": document(edits_document(new.edits)),
            "parent": version_number(new.parent),
            "actor": actor,
            "created_at": func.now(),
            "percent": 0,
            **base_values(new.base),
        }
        bake = bake_of((await self._connection.execute(insert(bakes).values(values).returning(*_WORK.whole))).one())
        await queue_job(self._connection, BAKE, bake.id, lock=BAKE)
        return bake

    async def advance(self, bake_id: str, stage: Stage, percent: int) -> bool:
        """Note progress; False when it has been cancelled, so the work should stop."""
        return await self._note(bake_id, stage=stage.value, percent=percent)

    async def claim(self, bake_id: str, artifact: Artifact) -> bool:
        """Name the artifact that is to be put after this transaction; False when it has been cancelled."""
        await self._connection.execute(select(func.pg_advisory_xact_lock_shared(ARTIFACT_LOCK)))
        return await self._note(bake_id, claimed=artifact.digest)

    async def refuse(self, bake_id: str, report: BakeReport) -> None:
        """Move it from running to refused."""
        await self._end(bake_id, state=BakeState.REFUSED.value, report=document(report_document(report)))

    async def finish(self, bake_id: str, report: BakeReport, *, version: str) -> bool:
        """Move it from running to done; False when it has been cancelled, so the transaction must be undone."""
        values = {"report": document(report_document(report)), "version": version_number(version), "percent": 100}
        return await self._end(bake_id, state=BakeState.DONE.value, **values)

    async def artifacts(self) -> tuple[frozenset[str], frozenset[str]]:
        """The digests that versions name, and those that running bakes claim; nothing more is claimed meanwhile."""
        await self._connection.execute(select(func.pg_advisory_xact_lock(ARTIFACT_LOCK)))
        claimed = select(bakes.c.claimed).where(_WORK.running, bakes.c.claimed.is_not(None))
        return (
            frozenset((await self._connection.scalars(select(versions.c.digest))).all()),
            frozenset((await self._connection.scalars(claimed)).all()),
        )
