"""What is served, in PostgreSQL: a row for each change, of which the newest holds."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import Row, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from service.domain.serving import Move, Serving
from service.store._bake_rows import VERSION_PREFIX, version_number
from service.store.changes import ChangeLog
from service.store.tables import serving


class PostgresServingReader:
    """Reads what is served within one transaction; see `service.domain.serving.ServingReader`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def now(self) -> Serving:
        """What is served."""
        newest = select(serving).order_by(serving.c.revision.desc()).limit(1)
        return _serving((await self._connection.execute(newest)).one())

    async def at(self, revision: int) -> Serving:
        """What the change of that revision made be served."""
        return _serving((await self._connection.execute(select(serving).where(serving.c.revision == revision))).one())


class PostgresServingWriter(PostgresServingReader):
    """Changes what is served within one transaction that holds the write lock; see `ServingWriter` of the domain."""

    def __init__(self, connection: AsyncConnection, log: ChangeLog) -> None:
        super().__init__(connection)
        self._log = log

    async def make(self, move: Move, *, reason: str | None) -> Serving:
        """Write a move; this is a change, and takes a revision."""
        to = asdict(move.to)
        del to["revision"]
        revision = await self._log.append(move.kind, move.subject, reason=reason, payload=to)
        canary = None if move.to.canary is None else version_number(move.to.canary)
        values = to | {"revision": revision, "active": version_number(move.to.active), "canary": canary}
        await self._connection.execute(insert(serving).values(values))
        return await self.now()


def _serving(row: Row[Any]) -> Serving:
    return Serving(
        active=f"{VERSION_PREFIX}{row.active}",
        canary=None if row.canary is None else f"{VERSION_PREFIX}{row.canary}",
        percent=row.percent,
        back=row.back,
        revision=row.revision,
    )
