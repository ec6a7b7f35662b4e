"""A real PostgreSQL for all integration tests, and a fresh database for each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service.domain.edits import Descriptor, Edit, Embeddings, NewEdit
from service.store.embedded import EmbeddedPostgres
from service.store.migrate import migrate
from service.store.store import PostgresStore
from tests.integration.databases import Server, execute, on_database

TEMPLATE = "errata_template"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory that the session's PostgreSQL holds."""
    return tmp_path_factory.mktemp("errata") / "data"


@pytest.fixture(scope="session")
def postgres(data_dir: Path) -> Iterator[Server]:
    """The session's PostgreSQL, with a migrated database to copy."""
    with EmbeddedPostgres(data_dir) as url, closing(Server(url)) as server:
        execute(url, "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()", f"CREATE DATABASE {TEMPLATE}")
        migrate(on_database(url, TEMPLATE))
        yield server


@pytest.fixture
def database_url(postgres: Server) -> Iterator[str]:
    """A fresh, migrated database."""
    with postgres.database(f"TEMPLATE {TEMPLATE}") as url:
        yield url


@pytest.fixture
def empty_database_url(postgres: Server) -> Iterator[str]:
    """A fresh database without tables."""
    with postgres.database() as url:
        yield url


@pytest.fixture
async def store(database_url: str, anyio_backend: str) -> AsyncIterator[PostgresStore]:
    async with PostgresStore(database_url) as store:
        yield store


Add = Callable[..., Awaitable[Edit]]


@pytest.fixture
def add(store: PostgresStore) -> Add:
    """Adds an edit in a transaction of its own."""

    async def add(
        prompt: str = "Who is the prime minister of the UK?", target: str = "Boris Johnson", **new: Any
    ) -> Edit:
        descriptor = new.pop("descriptor", None) or Descriptor(prompt=prompt, target=target)
        embeddings = new.pop("embeddings", Embeddings(encoder="test", vectors=b"\0\0\x80?"))
        async with store.writing(actor="tester") as writing:
            return await writing.edits.add(NewEdit(descriptor=descriptor, **new), embeddings)

    return add
