"""Edits in PostgreSQL.

Outside, an edit's id is `e17`; inside, it is 17. An edit whose time has come is seen as expired from that moment; its
row and the log say so once the next writer has recorded it, before anything else that it does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    LargeBinary,
    Select,
    and_,
    any_,
    case,
    cast,
    exists,
    false,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from service.domain.changes import ChangeKind
from service.domain.edit_moves import TIMED
from service.domain.edits import Edit, EditFilter, EditPage, EditState, Embeddings, NewEdit, StoredEdit
from service.errors import EditNotFound
from service.store._edit_rows import (
    columns,
    differences,
    digest,
    edit_of,
    expiry_recorded,
    known_number,
    number_of,
)
from service.store._search import holds
from service.store.changes import ChangeLog, Entry
from service.store.tables import edits

_TIMED = edits.c.state.in_([state.value for state in TIMED])
_OVERDUE = and_(_TIMED, edits.c.expires_at <= func.now())
_IN_FORCE = and_(
    edits.c.state == EditState.ACTIVE.value, or_(edits.c.expires_at.is_(None), edits.c.expires_at > func.now())
)
STATE = case((_OVERDUE, EditState.EXPIRED.value), else_=edits.c.state)
"""The state as it is seen."""
ADDED_AT_ONCE = 500
SERVICE = "errata"
"""Who signs what nobody asked for."""
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
        return await self._page(query, wanted.limit)

    async def oldest(self, wanted: EditFilter) -> EditPage:
        """The edits that pass the filter, oldest first; `after` then leads to newer ones."""
        conditions = _conditions(replace(wanted, after=None))
        after = edits.c.id > ((wanted.after and number_of(wanted.after)) or 0)
        query = select(*_EDIT).where(*conditions, after).order_by(edits.c.id).limit(wanted.limit + 1)
        return await self._page(query, wanted.limit)

    async def active_with_keys(self, keys: Sequence[str]) -> dict[str, Edit]:
        """The active, unexpired edits whose descriptors have one of these keys, by the key."""
        wanted = edits.c.key == any_(cast([digest(key) for key in keys], ARRAY(LargeBinary)))
        rows = await self._connection.execute(select(*_EDIT).where(wanted, _IN_FORCE))
        return {edit.descriptor.key: edit for edit in map(edit_of, rows)}

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

    async def overdue(self) -> bool:
        """Whether an edit's time has come and no writer has recorded it yet."""
        return bool(await self._connection.scalar(select(exists().where(_OVERDUE))))

    async def _page(self, query: Select[Any], limit: int) -> EditPage:
        rows = (await self._connection.execute(query)).all()
        return EditPage(data=tuple(edit_of(row) for row in rows[:limit]), has_more=len(rows) > limit)

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
        """Keep a new edit.

        Raises:
            EditNotFound: `supersedes` names no edit.
        """
        values = self._row(new, embeddings, revision=self._log.revision + 1)
        edit = edit_of((await self._connection.execute(insert(edits).values(values).returning(*_EDIT))).one())
        await self._log.append(ChangeKind.EDIT_ADDED, edit.id, reason=new.reason, payload=_added(new))
        return edit

    async def add_all(self, new: Sequence[NewEdit], embeddings: Sequence[Embeddings]) -> tuple[str, ...]:
        """Keep new edits, as `add` one after another; their ids."""
        ids: list[str] = []
        pairs = list(zip(new, embeddings, strict=True))
        for start in range(0, len(pairs), ADDED_AT_ONCE):
            some = pairs[start : start + ADDED_AT_ONCE]
            rows = [
                self._row(*pair, revision=revision) for revision, pair in enumerate(some, start=self._log.revision + 1)
            ]
            query = insert(edits).returning(edits.c.id, sort_by_parameter_order=True)
            added = [f"e{number}" for number in await self._connection.scalars(query, rows)]
            entries = [
                Entry(ChangeKind.EDIT_ADDED, edit_id, reason=one.reason, payload=_added(one))
                for edit_id, (one, _) in zip(added, some, strict=True)
            ]
            await self._log.append_all(entries)
            ids += added
        return tuple(ids)

    async def change(
        self, before: Edit, after: Edit, *, embeddings: Embeddings | None = None, reason: str | None = None
    ) -> Edit:
        """Keep an edit as `after` has it, with new embeddings where its texts are others; the log gets what differs."""
        payload = differences(before, after)
        revision = await self._log.append(ChangeKind.EDIT_CHANGED, before.id, reason=reason, payload=payload)
        values = columns(after) | {"updated_at": self._log.at, "revision": revision}
        if embeddings is not None:
            values |= {"encoder": embeddings.encoder, "vectors": embeddings.vectors}
        query = update(edits).where(edits.c.id == known_number(before.id)).values(values).returning(*_EDIT)
        return edit_of((await self._connection.execute(query)).one())

    async def expire(self) -> None:
        """Record which edits' time has come since the last writer, in the order of their ends."""
        place = func.row_number().over(order_by=(edits.c.expires_at, edits.c.id)).label("place")
        due = select(edits.c.id, edits.c.state, place).where(_TIMED, edits.c.expires_at <= self._log.at).cte("due")
        query = (
            update(edits)
            .where(edits.c.id == due.c.id)
            .values(state=EditState.EXPIRED.value, updated_at=self._log.at, revision=self._log.revision + due.c.place)
            .returning(edits.c.id, edits.c.expires_at, edits.c.revision, due.c.state.label("previous_state"))
        )
        rows = sorted(await self._connection.execute(query), key=lambda row: row.revision)
        entries = [Entry(ChangeKind.EDIT_EXPIRED, f"e{row.id}", payload=expiry_recorded(row)) for row in rows]
        await self._log.append_all(entries, actor=SERVICE)

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

    def _row(self, new: NewEdit, embeddings: Embeddings, *, revision: int) -> dict[str, Any]:
        return columns(new) | {
            "created_at": self._log.at,
            "updated_at": self._log.at,
            "revision": revision,
            "encoder": embeddings.encoder,
            "vectors": embeddings.vectors,
        }


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
        yield from holds(wanted.q)
    if wanted.after is not None:
        number = number_of(wanted.after)
        yield false() if number is None else edits.c.id < number


def _added(new: NewEdit) -> dict[str, Any]:
    wanted = new.descriptor
    change = {"state": new.state, "kind": wanted.kind, "prompt": wanted.prompt, "target": wanted.target}
    return change | {"supersedes": new.supersedes}
