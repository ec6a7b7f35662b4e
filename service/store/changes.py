"""The change log in PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from service.domain.changes import Change, ChangeKind
from service.store.tables import changes


class PostgresChangeReader:
    """Reads the log within one transaction; see `service.domain.changes.ChangeReader`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def revision(self) -> int:
        """The number of the newest change; 0 before the first."""
        newest = await self._connection.scalar(select(func.coalesce(func.max(changes.c.revision), 0)))
        return int(newest or 0)

    async def since(self, revision: int, *, limit: int) -> tuple[Change, ...]:
        """The changes after `revision`, oldest first."""
        return await self._where(changes.c.revision > revision, limit=limit)

    async def of(self, subject_id: str) -> tuple[Change, ...]:
        """The changes of one subject, oldest first."""
        return await self._where(changes.c.subject_id == subject_id)

    async def _where(self, condition: ColumnElement[bool], *, limit: int | None = None) -> tuple[Change, ...]:
        query = select(changes).where(condition).order_by(changes.c.revision).limit(limit)
        return tuple(_change(row) for row in await self._connection.execute(query))


class ChangeLog:
    """Writes the log within one transaction that holds the write lock.

    Args:
        connection: Of that transaction.
        actor: Signs the changes.
        at: When the lock was taken; the time of every change of the transaction.
        revision: Of the newest change before it.
    """

    def __init__(self, connection: AsyncConnection, *, actor: str, at: datetime, revision: int) -> None:
        self._connection = connection
        self._actor = actor
        self.at = at
        self.revision = revision

    async def append(
        self, kind: ChangeKind, subject_id: str, *, reason: str | None = None, payload: dict[str, Any]
    ) -> int:
        """Write the next change and return its revision."""
        self.revision += 1
        values = {"revision": self.revision, "actor": self._actor, "at": self.at}
        values |= {"kind": kind.value, "subject_id": subject_id, "reason": reason, "payload": payload}
        await self._connection.execute(insert(changes).values(values))
        return self.revision


def _change(row: Row[Any]) -> Change:
    return Change(**row._asdict() | {"kind": ChangeKind(row.kind), "at": row.at.astimezone(UTC)})
