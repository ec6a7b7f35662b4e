"""API keys in PostgreSQL. Outside, a key's id is `k3`; inside, it is 3. A row is never deleted: its name has signed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from service.domain.keys import ApiKey, KeyScope, NewKey
from service.store._documents import number_in
from service.store.tables import keys

PREFIX = "k"


class PostgresKeyReader:
    """Reads keys within one transaction; see `service.domain.keys.KeyReader`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def all(self) -> tuple[ApiKey, ...]:
        """Every key that was ever made, oldest first."""
        return tuple(_key(row) for row in await self._connection.execute(select(keys).order_by(keys.c.id)))


class PostgresKeyWriter(PostgresKeyReader):
    """Makes and revokes keys within one transaction; see `service.domain.keys.KeyWriter`."""

    async def add(self, new: NewKey) -> ApiKey:
        """Keep a key.

        Raises:
            KeyNameTaken: At once, when another has, or had, its name.
        """
        values = {
            "name": new.name,
            "scopes": sorted(new.scopes),
            "digest": new.digest,
            "created_at": func.now(),
            "expires_at": new.expires_at,
        }
        return _key((await self._connection.execute(insert(keys).values(values).returning(keys))).one())

    async def revoke(self, key_id: str) -> ApiKey | None:
        """End a key; as it then is, or None when there is no such key. One that was revoked stays as it is."""
        values = {"revoked_at": func.coalesce(keys.c.revoked_at, func.now())}
        query = update(keys).where(keys.c.id == number_in(PREFIX, key_id)).values(values).returning(keys)
        row = (await self._connection.execute(query)).one_or_none()
        return None if row is None else _key(row)


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        id=f"{PREFIX}{row.id}",
        name=row.name,
        scopes=frozenset(KeyScope(scope) for scope in row.scopes),
        digest=row.digest,
        created_at=row.created_at.astimezone(UTC),
        expires_at=_utc(row.expires_at),
        revoked_at=_utc(row.revoked_at),
    )


def _utc(at: datetime | None) -> datetime | None:
    return None if at is None else at.astimezone(UTC)
