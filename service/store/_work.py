"""Rows whose work is done by a job: queued, then running, then ended in one of several ways.

Each move names the states that it starts from, so of two that meet the first holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Row, Table, Update, false, func, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from service.store._documents import number_in

Kept = TypeVar("Kept")

QUEUED, RUNNING, FAILED, CANCELLED = "queued", "running", "failed", "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Work(Generic[Kept]):
    """How one kind of work is kept.

    Attributes:
        table: With the columns id, state, started_at, finished_at and error.
        prefix: Of its ids outside.
        whole: The columns of one row, and `short` those of a listing.
        read: What a row says.
        begun: Values of a row whose work begins, or begins again.
    """

    table: Table
    prefix: str
    whole: tuple[ColumnElement[Any], ...]
    short: tuple[ColumnElement[Any], ...]
    read: Callable[[Row[Any]], Kept]
    begun: Mapping[str, object]

    @property
    def running(self) -> ColumnElement[bool]:
        """Its worker is at it, or was killed."""
        return self.table.c.state == RUNNING

    @property
    def under_way(self) -> ColumnElement[bool]:
        """It has not ended."""
        return self.table.c.state.in_([QUEUED, RUNNING])

    def is_(self, subject_id: str) -> ColumnElement[bool]:
        """The row of that id."""
        return self.table.c.id == number_in(self.prefix, subject_id)

    def older_than(self, subject_id: str | None) -> ColumnElement[bool]:
        """The rows before that id; all when it is None."""
        if subject_id is None:
            return true()
        number = number_in(self.prefix, subject_id)
        return false() if number is None else self.table.c.id < number


class WorkReader(Generic[Kept]):
    """Reads within one transaction."""

    def __init__(self, connection: AsyncConnection, work: Work[Kept]) -> None:
        self._connection = connection
        self._work = work

    async def get(self, subject_id: str) -> Kept | None:
        """What has that id, or None."""
        query = select(*self._work.whole).where(self._work.is_(subject_id))
        row = (await self._connection.execute(query)).one_or_none()
        return None if row is None else self._work.read(row)

    async def _page(self, *, limit: int, after: str | None) -> tuple[tuple[Kept, ...], bool]:
        """Those older than the id `after`, newest first, and whether there are more."""
        newest = self._work.table.c.id.desc()
        query = select(*self._work.short).where(self._work.older_than(after)).order_by(newest).limit(limit + 1)
        rows = (await self._connection.execute(query)).all()
        return tuple(self._work.read(row) for row in rows[:limit]), len(rows) > limit


class WorkWriter(WorkReader[Kept]):
    """Moves rows within one transaction."""

    async def start(self, subject_id: str) -> Kept | None:
        """Move it from queued or running (a worker that was killed) to running; None when it has ended meanwhile."""
        return await self._moved(
            subject_id, self._work.under_way, state=RUNNING, started_at=func.now(), **self._work.begun
        )

    async def fail(self, subject_id: str, error: str) -> None:
        """Move it to failed unless it has ended."""
        await self._connection.execute(
            self._update(subject_id, self._work.under_way).values(state=FAILED, error=error, finished_at=func.now())
        )

    async def cancel(self, subject_id: str) -> Kept | None:
        """Move it to cancelled unless it has ended; what it is then, or None when there is no such thing."""
        moved = await self._moved(subject_id, self._work.under_way, state=CANCELLED, finished_at=func.now())
        return await self.get(subject_id) if moved is None else moved

    async def _note(self, subject_id: str, **values: object) -> bool:
        """Change a running row; False when it runs no more."""
        query = self._update(subject_id, self._work.running).values(values)
        return (await self._connection.execute(query)).rowcount > 0

    async def _end(self, subject_id: str, **values: object) -> bool:
        """Move a running row to an end; False when it runs no more."""
        return await self._note(subject_id, finished_at=func.now(), **values)

    async def _moved(self, subject_id: str, stands: ColumnElement[bool], **values: object) -> Kept | None:
        query = self._update(subject_id, stands).values(values).returning(*self._work.whole)
        row = (await self._connection.execute(query)).one_or_none()
        return None if row is None else self._work.read(row)

    def _update(self, subject_id: str, stands: ColumnElement[bool]) -> Update:
        return update(self._work.table).where(self._work.is_(subject_id), stands)
