"""The listener: hears of every change as soon as it is committed, by PostgreSQL's LISTEN and NOTIFY."""

from __future__ import annotations

import asyncio

import psycopg
import structlog

from service.store.store import CONNECT_SECONDS, NEWS
from service.store.urls import conninfo

SECONDS_BETWEEN_ATTEMPTS = 1.0

_log = structlog.get_logger(__name__)


async def listen(url: str, heard: asyncio.Event) -> None:
    """Set `heard` whenever a change has been committed, by whichever process, until cancelled.

    It is also set when listening begins: what was committed before has not been heard of. A database that is away is
    looked for again.
    """
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(
                conninfo(url), autocommit=True, connect_timeout=CONNECT_SECONDS
            ) as connection:
                await connection.execute(f"LISTEN {NEWS}")
                heard.set()
                async for _ in connection.notifies():
                    heard.set()
        except (psycopg.Error, OSError) as error:
            _log.warning("cannot listen for changes", cause=repr(error))
        await asyncio.sleep(SECONDS_BETWEEN_ATTEMPTS)
