"""The store: transactions on PostgreSQL, each a snapshot to read, the one writer's turn to write, or a record."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

from alembic.runtime.migration import MigrationContext
from sqlalchemy import event, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from service.domain.census import Census
from service.domain.receipts import Receipt
from service.store.bakes import PostgresBakeReader, PostgresBakeWriter
from service.store.census import census
from service.store.changes import ChangeLog, PostgresChangeReader
from service.store.edits import PostgresEditReader, PostgresEditWriter
from service.store.evaluations import PostgresEvaluationReader, PostgresEvaluationWriter
from service.store.failures import translated, without_contents
from service.store.keys import PostgresKeyReader, PostgresKeyWriter
from service.store.migrate import code_head
from service.store.receipts import PostgresReceiptReader, PostgresReceiptWriter, claim, keep
from service.store.serving import PostgresServingReader, PostgresServingWriter
from service.store.tables import changes
from service.store.urls import engine_url
from service.store.versions import PostgresVersionReader, PostgresVersionWriter

WRITE_LOCK = 0x657272617461
"""The advisory lock of writers: "errata" in ASCII."""
NEWS = "errata_changes"
"""The channel that is notified of committed changes."""
CONNECT_SECONDS = 5
WAIT_SECONDS = 10
"""Longest wait for a free connection, and for the write lock."""


@dataclass(frozen=True, slots=True)
class PostgresReading:
    """One read-only transaction on one snapshot."""

    edits: PostgresEditReader
    evaluations: PostgresEvaluationReader
    bakes: PostgresBakeReader
    versions: PostgresVersionReader
    serving: PostgresServingReader
    changes: PostgresChangeReader
    keys: PostgresKeyReader
    receipts: PostgresReceiptReader
    connection: AsyncConnection

    async def census(self) -> Census:
        """How many edits there are."""
        return await census(self.connection)


@dataclass(frozen=True, slots=True)
class PostgresWriting:
    """One transaction that holds the write lock."""

    edits: PostgresEditWriter
    bakes: PostgresBakeWriter
    versions: PostgresVersionWriter
    serving: PostgresServingWriter
    changes: PostgresChangeReader


@dataclass(frozen=True, slots=True)
class PostgresRecording:
    """One transaction on what alters no answer."""

    evaluations: PostgresEvaluationWriter
    bakes: PostgresBakeWriter
    keys: PostgresKeyWriter
    receipts: PostgresReceiptWriter


class PostgresStore:
    """The truth, in PostgreSQL; see `service.domain.ports.Store`.

    Connects when it is first used. Use it as an async context manager, on one event loop; leaving closes its
    connections.

    Args:
        url: Of a database that `service.store.migrate` has prepared.

    Raises:
        StartupError: The URL is no PostgreSQL URL.
    """

    def __init__(self, url: str) -> None:
        self._engine = create_async_engine(
            engine_url(url),
            pool_pre_ping=True,
            pool_timeout=WAIT_SECONDS,
            hide_parameters=True,  # an error that is logged would show prompts
            connect_args={"connect_timeout": CONNECT_SECONDS},
        )
        event.listen(self._engine.sync_engine, "handle_error", without_contents)
        self._snapshots = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._code_head = code_head()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._engine.dispose()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[PostgresReading]:
        """Open a read-only transaction: everything read in it is of one moment.

        Raises:
            StoreUnavailable: PostgreSQL does not answer.
        """
        with translated():
            async with self._snapshots.begin() as connection:
                yield PostgresReading(
                    PostgresEditReader(connection),
                    PostgresEvaluationReader(connection),
                    PostgresBakeReader(connection),
                    PostgresVersionReader(connection),
                    PostgresServingReader(connection),
                    PostgresChangeReader(connection),
                    PostgresKeyReader(connection),
                    PostgresReceiptReader(connection),
                    connection,
                )

    @asynccontextmanager
    async def writing(self, *, actor: str, receipt: Receipt | None = None) -> AsyncIterator[PostgresWriting]:
        """Open a transaction under the write lock: it commits when the block ends, and leaves no trace when it raises.

        It begins by recording the edits that have expired since the last one. A `receipt`, which the block settles,
        commits with it.

        Raises:
            AlreadyAnswered, IdempotencyKeyReused: By the receipt's claim, before the block begins.
            StoreUnavailable: PostgreSQL does not answer, or other writers keep the lock too long.
            EditConflict: At its end, two active edits have one key.
        """
        with translated():
            async with self._engine.begin() as connection:
                log = await _take_turn(connection, actor)
                before = log.revision
                edits = PostgresEditWriter(connection, log)
                await edits.expire()
                if receipt is not None:
                    await claim(connection, receipt)
                yield PostgresWriting(
                    edits,
                    PostgresBakeWriter(connection),
                    PostgresVersionWriter(connection, log, actor=actor),
                    PostgresServingWriter(connection, log),
                    PostgresChangeReader(connection),
                )
                if receipt is not None:
                    await keep(connection, receipt)
                if log.revision > before:
                    await connection.execute(text(f"NOTIFY {NEWS}"))

    @asynccontextmanager
    async def recording(self, *, receipt: Receipt | None = None) -> AsyncIterator[PostgresRecording]:
        """Open a transaction without the write lock, on what alters no answer; `receipt` is as for `writing`.

        Raises:
            AlreadyAnswered, IdempotencyKeyReused: By the receipt's claim, before the block begins.
            StoreUnavailable: PostgreSQL does not answer.
        """
        with translated():
            async with self._engine.begin() as connection:
                if receipt is not None:
                    await claim(connection, receipt)
                yield PostgresRecording(
                    PostgresEvaluationWriter(connection),
                    PostgresBakeWriter(connection),
                    PostgresKeyWriter(connection),
                    PostgresReceiptWriter(connection),
                )
                if receipt is not None:
                    await keep(connection, receipt)

    async def migration(self) -> tuple[str | None, str]:
        """The migration the database is at (None for an empty database), and the one the code needs.

        Raises:
            StoreUnavailable: PostgreSQL does not answer.
        """
        with translated():
            async with self._engine.connect() as connection:
                current = await connection.run_sync(
                    lambda sync: MigrationContext.configure(sync).get_current_revision()
                )
        return current, self._code_head


async def _take_turn(connection: AsyncConnection, actor: str) -> ChangeLog:
    """Wait for the write lock. Writers take it before they read, so the order of revisions is the order of commits."""
    wait = func.set_config("lock_timeout", f"{WAIT_SECONDS}s", True)  # noqa: FBT003 - SQL's argument: this transaction
    await connection.execute(select(wait, func.pg_advisory_xact_lock(WRITE_LOCK)))
    newest = select(func.clock_timestamp(), func.coalesce(func.max(changes.c.revision), 0))
    at, revision = (await connection.execute(newest)).one()
    return ChangeLog(connection, actor=actor, at=at, revision=revision)
