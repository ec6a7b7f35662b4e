"""Edits in PostgreSQL.

Outside, an edit's id is `e17`; inside, it is 17. An active edit whose time has passed is seen as expired from that
moment, though its row says so only once another edit takes its key.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, and_, any_, case, cast, false, func, insert, or_, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from service.domain.changes import ChangeKind
from service.domain.edits import Edit, EditFilter, EditPage, EditState, Embeddings, NewEdit, StoredEdit
from service.errors import EditNotFound
from service.store._edit_rows import digest, edit_of, fold, known_number, number_of, searchable
from service.store.changes import ChangeLog
from service.store.tables import edits

_OVERDUE = and_(edits.c.state == EditState.ACTIVE.value, edits.c.expires_at <= func.now())
_IN_FORCE = and_(
    edits.c.state == EditState.ACTIVE.value, or_(edits.c.expires_at.is_(None), edits.c.expires_at > func.now())
)
STATE = case((_OVERDUE, EditState.EXPIRED.value), else_=edits.c.state)
"""The state as it is seen."""
_EDIT: tuple[ColumnElement[Any], ...] = (
    *(edits.c[name] for name in ("id", "revision", "descriptor", "created_at", "updated_at", "expires_at")),
    *(edits.c[name] for name in ("reason", "tags", "supersedes", "superseded_by")),
    STATE.label("state"),
)
_STORED = (*_EDIT, edits.c.encoder, edits.c.vectors)


class PostgresEditReader:
    """Reads edits within one transaction; see `service.domain.edits.EditReader`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def get(self, edit_id: str) -> Edit | None:
        """The edit of that id in whatever state, or None."""
        return await self._one(edits.c.id == number_of(edit_id))

    async def page(self, wanted: EditFilter) -> EditPage:
        """The edits that pass the filter, newest first."""
        query = select(*_EDIT).where(*_conditions(wanted)).order_by(edits.c.id.desc()).limit(wanted.limit + 1)
        rows = (await self._connection.execute(query)).all()
        return EditPage(data=tuple(edit_of(row) for row in rows[: wanted.limit]), has_more=len(rows) > wanted.limit)

    async def active_with_key(self, key: str) -> Edit | None:
        """The active, unexpired edit whose descriptor has this key, or None."""
        return await self._one(and_(edits.c.key == digest(key), _IN_FORCE))

    async def active(self) -> tuple[StoredEdit, ...]:
        """Every active, unexpired edit, oldest first."""
        return await self._stored(_IN_FORCE)

    async def in_force(self) -> tuple[Edit, ...]:
        """As `active`, without the embeddings."""
        rows = await self._connection.execute(select(*_EDIT).where(_IN_FORCE).order_by(edits.c.id))
        return tuple(edit_of(row) for row in rows)

    async def with_ids(self, ids: tuple[str, ...]) -> tuple[StoredEdit, ...]:
        """The edits of these ids, in whatever state, oldest first."""
        numbers = [number for number in map(number_of, ids) if number is not None]
        return await self._stored(edits.c.id == any_(cast(numbers, ARRAY(BigInteger))))

    async def count(self) -> int:
        """How many edits are in force now."""
        return await self._connection.scalar(select(func.count()).select_from(edits).where(_IN_FORCE)) or 0

    async def _one(self, condition: ColumnElement[bool]) -> Edit | None:
        row = (await self._connection.execute(select(*_EDIT).where(condition))).one_or_none()
        return None if row is None else edit_of(row)

    async def _stored(self, condition: ColumnElement[bool]) -> tuple[StoredEdit, ...]:
        rows = await self._connection.execute(select(*_STORED).where(condition).order_by(edits.c.id))
        return tuple(
            StoredEdit(edit=edit_of(row), embeddings=Embeddings(encoder=row.encoder, vectors=row.vectors))
            for row in rows
        )


class PostgresEditWriter(PostgresEditReader):
    """Changes edits within one transaction that holds the write lock; see `service.domain.edits.EditWriter`."""

    def __init__(self, connection: AsyncConnection, log: ChangeLog) -> None:
        super().__init__(connection)
        self._log = log

    async def add(self, new: NewEdit, embeddings: Embeddings) -> Edit:
        """Keep a new edit, and close an expired one that has its key.

        Raises:
            EditNotFound: `supersedes` names no edit.
        """
        key = digest(new.descriptor.key)
        closed = update(edits).where(edits.c.key == key, _OVERDUE).values(state=EditState.EXPIRED.value)
        await self._connection.execute(closed)
        values = {
            "kind": new.descriptor.kind.value,
            "state": new.state.value,
            "key": key,
            "descriptor": asdict(new.descriptor),
            "search": searchable(new.descriptor),
            "expires_at": new.expires_at,
            "reason": new.reason,
            "tags": list(new.tags),
            "supersedes": None if new.supersedes is None else known_number(new.supersedes),
            "created_at": self._log.at,
            "updated_at": self._log.at,
            "revision": self._log.revision + 1,
            "encoder": embeddings.encoder,
            "vectors": embeddings.vectors,
        }
        row = (await self._connection.execute(insert(edits).values(values).returning(*_EDIT))).one()
        edit = edit_of(row)
        await self._log.append(ChangeKind.EDIT_ADDED, edit.id, reason=new.reason, payload=_added(new))
        return edit

    async def retract(self, edit_id: str, *, reason: str | None = None, superseded_by: str | None = None) -> Edit:
        """End an edit's life; its row and history stay.

        Raises:
            EditNotFound: There is no such edit, or its life has ended already.
        """
        edit = await self.get(edit_id)
        if edit is None or edit.state is EditState.RETRACTED:
            raise EditNotFound(f"There is no edit {edit_id} to retract.")
        payload: dict[str, Any] = {"previous_state": edit.state.value}
        if superseded_by is not None:
            payload["superseded_by"] = superseded_by
        kind = ChangeKind.EDIT_RETRACTED if superseded_by is None else ChangeKind.EDIT_SUPERSEDED
        revision = await self._log.append(kind, edit_id, reason=reason, payload=payload)
        values = {
            "state": EditState.RETRACTED.value,
            "superseded_by": None if superseded_by is None else known_number(superseded_by),
            "updated_at": self._log.at,
            "revision": revision,
        }
        query = update(edits).where(edits.c.id == number_of(edit_id)).values(values).returning(*_EDIT)
        return edit_of((await self._connection.execute(query)).one())

    async def embed_again(self, edit_id: str, embeddings: Embeddings) -> None:
        """Replace the embeddings, which are derived data: this is no change and takes no revision."""
        values = {"encoder": embeddings.encoder, "vectors": embeddings.vectors}
        await self._connection.execute(update(edits).where(edits.c.id == number_of(edit_id)).values(values))


def _conditions(wanted: EditFilter) -> Iterator[ColumnElement[bool]]:
    if wanted.states:
        yield STATE.in_([state.value for state in wanted.states])
    else:
        yield edits.c.state != EditState.RETRACTED.value
    if wanted.tag is not None:
        yield edits.c.tags.contains([wanted.tag])
    if wanted.kind is not None:
        yield edits.c.kind == wanted.kind.value
    if wanted.q is not None:
        yield func.strpos(edits.c.search, fold(wanted.q)) > 0
    if wanted.after is not None:
        number = number_of(wanted.after)
        yield false() if number is None else edits.c.id < number


def _added(new: NewEdit) -> dict[str, Any]:
    wanted = new.descriptor
    change = {"state": new.state, "kind": wanted.kind, "prompt": wanted.prompt, "target": wanted.target}
    return change | {"supersedes": new.supersedes}
