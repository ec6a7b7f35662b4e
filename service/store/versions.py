"""Versions in PostgreSQL. Outside, a version's id is `v3`; inside, it is 3. The base, v0, has no row."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, false, func, insert, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from service.domain.artifacts import Artifact
from service.domain.changes import ChangeKind
from service.domain.versions import NewVersion, Version, VersionPage
from service.store._bake_rows import (
    VERSION_PREFIX,
    base_values,
    config_document,
    report_document,
    version_number,
    version_of,
)
from service.store._documents import as_text, document, number_in, without
from service.store._edit_rows import known_number
from service.store.changes import ChangeLog
from service.store.tables import bakes, version_edits, versions

_COMMON = (
    *(versions.c[name] for name in ("number", "parent", "base_name", "base_fingerprint", "method")),
    *(versions.c[name] for name in ("digest", "size", "actor", "created_at", "revision")),
    as_text(versions.c.config, "config"),
    select(bakes.c.id).where(bakes.c.version == versions.c.number).scalar_subquery().label("bake"),
)
_WHOLE = (*_COMMON, as_text(versions.c.report, "report"))
_SHORT = (*_COMMON, as_text(without(versions.c.report, {"failures": []}), "report"))


class PostgresVersionReader:
    """Reads versions within one transaction; see `service.domain.versions.VersionReader`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def get(self, version_id: str) -> Version | None:
        """The version of that id, or None."""
        query = select(*_WHOLE).where(versions.c.number == number_in(VERSION_PREFIX, version_id))
        found = await self._with_edits((await self._connection.execute(query)).all())
        return found[0] if found else None

    async def page(self, *, limit: int, after: str | None) -> VersionPage:
        """Versions older than the id `after`, newest first, without the failures of their reports."""
        number = None if after is None else number_in(VERSION_PREFIX, after)
        older = true() if after is None else false() if number is None else versions.c.number < number
        query = select(*_SHORT).where(older).order_by(versions.c.number.desc()).limit(limit + 1)
        rows = (await self._connection.execute(query)).all()
        return VersionPage(data=await self._with_edits(rows[:limit]), has_more=len(rows) > limit)

    async def artifacts(self) -> tuple[tuple[str, Artifact], ...]:
        """The id and the artifact of every version, oldest first."""
        query = select(versions.c.number, versions.c.digest, versions.c.size).order_by(versions.c.number)
        return tuple(
            (f"{VERSION_PREFIX}{row.number}", Artifact(digest=row.digest, size=row.size))
            for row in await self._connection.execute(query)
        )

    async def _with_edits(self, rows: Sequence[Row[Any]]) -> tuple[Version, ...]:
        wanted = version_edits.c.version.in_([row.number for row in rows])
        query = select(version_edits).where(wanted).order_by(version_edits.c.place)
        edits: dict[int, list[Row[Any]]] = defaultdict(list)
        for edit in await self._connection.execute(query):
            edits[edit.version].append(edit)
        return tuple(version_of(row, edits[row.number]) for row in rows)


class PostgresVersionWriter(PostgresVersionReader):
    """Adds versions within one transaction that holds the write lock; see `service.domain.versions.VersionWriter`."""

    def __init__(self, connection: AsyncConnection, log: ChangeLog, *, actor: str) -> None:
        super().__init__(connection)
        self._log = log
        self._actor = actor

    async def add(self, new: NewVersion) -> Version:
        """Keep a version under the next number; this is a change, and takes a revision."""
        newest = await self._connection.scalar(select(func.coalesce(func.max(versions.c.number), 0)))
        number = int(newest or 0) + 1
        version_id = f"{VERSION_PREFIX}{number}"
        ids = [edit.id for edit in new.edits]
        payload = {"method": new.method, "edits": ids, "digest": new.artifact.digest}
        revision = await self._log.append(ChangeKind.VERSION_ADDED, version_id, payload=payload)
        values = {
            "number": number,
            "parent": version_number(new.parent),
            "method": new.method,
            "config": document(config_document(new.config)),
            "report": document(report_document(new.report)),
            "digest": new.artifact.digest,
            "size": new.artifact.size,
            "actor": self._actor,
            "created_at": self._log.at,
            "revision": revision,
            **base_values(new.base),
        }
        await self._connection.execute(insert(versions).values(values))
        edits = [
            {"version": number, "place": place, "edit": known_number(edit.id), "revision": edit.revision}
            for place, edit in enumerate(new.edits, start=1)
        ]
        await self._connection.execute(insert(version_edits), edits)
        added = await self.get(version_id)
        assert added is not None, "it was added in this transaction"
        return added
