"""The change log in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
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


@dataclass(frozen=True, slots=True)
class Entry:
    """A change to write, before it has its place in the log."""

    kind: ChangeKind
    subject_id: str
    _: KW_ONLY
    payload: dict[str, Any]
    reason: str | None = None


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
        await self.append_all([Entry(kind, subject_id, reason=reason, payload=payload)])
        return self.revision

    async def append_all(self, entries: Sequence[Entry], *, actor: str | None = None) -> None:
        """Write the next changes, which take one revision each; signed by `actor` in place of the writer."""
        if not entries:
            return
        values = [
            {
                "revision": revision,
                "actor": actor or self._actor,
                "at": self.at,
                "kind": entry.kind.value,
                "subject_id": entry.subject_id,
                "reason": entry.reason,
                "payload": entry.payload,
            }
            for revision, entry in enumerate(entries, start=self.revision + 1)
        ]
        await self._connection.execute(insert(changes), values)
        self.revision += len(entries)


def _change(row: Row[Any]) -> Change:
    return Change(**row._asdict() | {"kind": ChangeKind(row.kind), "at": row.at.astimezone(UTC)})
