"""When PostgreSQL is away the store says so, and goes on when it is back."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest

from service.domain.edits import Descriptor, Embeddings, NewEdit
from service.errors import StoreUnavailable
from service.store import store as store_module
from service.store.embedded import Cluster
from service.store.migrate import migrate
from service.store.store import PostgresStore
from tests.databases import execute

pytestmark = pytest.mark.anyio

NEW = NewEdit(descriptor=Descriptor(prompt="Who is the prime minister?", target="Boris Johnson"))
EMBEDDINGS = Embeddings(encoder="test", vectors=b"")
TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid != pg_backend_pid()
"""


@pytest.fixture
def cluster():
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # short: the socket's path stays the same when it restarts
        cluster = Cluster(Path(folder) / "postgres")
        yield cluster
        cluster.stop()


async def test_the_store_is_unavailable_while_postgresql_is_stopped_and_recovers_when_it_is_back(cluster):
    url = cluster.start()
    migrate(url)
    async with PostgresStore(url) as store:
        async with store.writing(actor="tester") as writing:
            edit = await writing.edits.add(NEW, EMBEDDINGS)
        cluster.stop()
        for _ in range(2):
            await _is_unavailable(store)
        assert cluster.start() == url
        async with store.reading() as reading:
            assert await reading.edits.get(edit.id) == edit
        async with store.writing(actor="tester") as writing:
            assert (await writing.edits.retract(edit.id)).revision == 2


async def test_a_transaction_whose_connection_is_lost_is_unavailable_and_leaves_no_trace(store, database_url):
    with pytest.raises(StoreUnavailable):
        async with store.writing(actor="tester") as writing:
            await writing.edits.add(NEW, EMBEDDINGS)
            execute(database_url, TERMINATE)
    async with store.reading() as reading:
        assert await reading.changes.revision() == 0
        assert await reading.edits.count() == 0


async def test_a_writer_that_waits_too_long_for_its_turn_is_told_so(database_url, monkeypatch):
    monkeypatch.setattr(store_module, "WAIT_SECONDS", 0.05)
    async with PostgresStore(database_url) as store, store.writing(actor="slow"):
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            async with store.writing(actor="impatient"):
                pass


async def test_an_unreachable_database_is_unavailable_with_the_reason():
    async with PostgresStore("postgresql://ann:s3cret@127.0.0.1:1/errata") as store:
        with pytest.raises(StoreUnavailable, match="refused") as unavailable:
            await store.migration()
    assert "s3cret" not in str(unavailable.value)
    assert unavailable.value.retryable


async def _is_unavailable(store: PostgresStore) -> None:
    with pytest.raises(StoreUnavailable):
        async with store.reading() as reading:
            await reading.edits.count()
    with pytest.raises(StoreUnavailable):
        async with store.writing(actor="tester"):
            await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable):
        await store.migration()
