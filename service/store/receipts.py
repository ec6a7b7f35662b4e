"""Receipts in PostgreSQL: claimed first thing in the transaction of a fact, filled in last thing.

The claim's row is a lock: of two transactions with one claim the second waits at its insertion until the first has
ended, and then finds what was answered, or, when the first was undone, goes on in its place.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Row, and_, delete, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from service.domain.receipts import KEPT_FOR, AlreadyAnswered, Answer, Claim, Receipt, same
from service.store.tables import receipts

_FRESH = receipts.c.at > func.now() - literal(KEPT_FOR)
_ANSWER = (receipts.c.digest, receipts.c.status, receipts.c.headers, receipts.c.body)


class PostgresReceiptReader:
    """Reads receipts within one transaction; see `service.domain.receipts.ReceiptReader`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def answer(self, claim: Claim) -> Answer | None:
        """What was answered to this request; None when it is new, or was forgotten.

        Raises:
            IdempotencyKeyReused: Its key came with another body.
        """
        row = (await self._connection.execute(select(*_ANSWER).where(_is(claim), _FRESH))).one_or_none()
        return None if row is None else _answer(claim, row)


class PostgresReceiptWriter(PostgresReceiptReader):
    """Forgets receipts within one transaction; see `service.domain.receipts.ReceiptWriter`."""

    async def forget_old(self) -> None:
        """Remove those older than `KEPT_FOR`, but for those that a new claim is just taking over."""
        old = select(receipts.c.actor, receipts.c.path, receipts.c.key).where(~_FRESH).with_for_update(skip_locked=True)
        found = old.subquery()
        matching = and_(*(receipts.c[name] == found.c[name] for name in ("actor", "path", "key")))
        await self._connection.execute(delete(receipts).where(matching))


async def claim(connection: AsyncConnection, receipt: Receipt) -> None:
    """Take a receipt's claim for this transaction, which ends without a trace if another has had it.

    Raises:
        AlreadyAnswered: The fact is there already.
        IdempotencyKeyReused: The key came with another body.
    """
    wanted = receipt.claim
    values = {"actor": wanted.actor, "path": wanted.path, "key": wanted.key, "digest": wanted.digest, "at": func.now()}
    taken = insert(receipts).values(values)
    old = {"digest": taken.excluded.digest, "at": taken.excluded.at}
    query = taken.on_conflict_do_update(constraint=receipts.primary_key, set_=old, where=~_FRESH)
    if (await connection.execute(query.returning(receipts.c.key))).one_or_none() is None:
        raise AlreadyAnswered(_answer(wanted, (await connection.execute(select(*_ANSWER).where(_is(wanted)))).one()))


async def keep(connection: AsyncConnection, receipt: Receipt) -> None:
    """Fill in what was answered."""
    answer = receipt.answer
    values = {"status": answer.status, "headers": answer.headers, "body": answer.body}
    await connection.execute(update(receipts).where(_is(receipt.claim)).values(values))


def _is(wanted: Claim) -> ColumnElement[bool]:
    return and_(receipts.c.actor == wanted.actor, receipts.c.path == wanted.path, receipts.c.key == wanted.key)


def _answer(claim: Claim, row: Row[*tuple[Any, ...]]) -> Answer:
    return same(claim, row.digest, Answer(status=row.status, headers=row.headers, body=row.body))
