"""How many there are: the figures that an operator watches."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from service.domain.census import Census
from service.domain.edits import EditState
from service.store.edits import STATE
from service.store.tables import changes, edits


async def census(connection: AsyncConnection) -> Census:
    """The figures, within one transaction."""
    query = select(STATE.label("state"), func.count(), func.sum(func.octet_length(edits.c.vectors))).group_by(STATE)
    found = {EditState(state): (count, int(size or 0)) for state, count, size in await connection.execute(query)}
    counts = {state: found.get(state, (0, 0))[0] for state in EditState}
    revision = await connection.scalar(select(func.max(changes.c.revision)))
    return Census(revision=int(revision or 0), edits=counts, vector_bytes=found.get(EditState.ACTIVE, (0, 0))[1])
