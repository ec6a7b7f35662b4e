"""A replica follows as soon as it hears of a change, and when it hears nothing."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from service.runtime import follower
from service.runtime.follower import follow
from service.store import listener
from service.store.listener import listen
from tests.databases import execute
from tests.fakes import ExactRuntime
from tests.integration.test_store_outages import TERMINATE

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def following(store, url=None):
    """A replica that follows, and listens where a URL is given."""
    runtime, heard = ExactRuntime(store), asyncio.Event()
    tasks = [asyncio.create_task(follow(runtime, heard))]
    if url is not None:
        tasks.append(asyncio.create_task(listen(url, heard)))
    try:
        yield runtime
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def reaches(runtime, revision):
    async with asyncio.timeout(60):
        while runtime.info().revision < revision:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.fixture
def never_looks(monkeypatch):
    """A follower that does nothing of its own accord."""
    monkeypatch.setattr(follower, "SECONDS_BETWEEN_LOOKS", 3600.0)


async def test_a_change_is_followed_as_soon_as_it_is_heard_of(store, add, database_url, never_looks):
    async with following(store, database_url) as runtime:
        for revision in (1, 2, 3):
            await add(f"prompt {revision}", "target")
            await reaches(runtime, revision)


async def test_what_was_committed_before_it_listened_or_while_it_could_not_is_followed(
    store, add, database_url, never_looks, monkeypatch
):
    monkeypatch.setattr(listener, "SECONDS_BETWEEN_ATTEMPTS", 0.1)
    await add("first", "target")
    async with following(store, database_url) as runtime:
        await reaches(runtime, 1)
        execute(database_url, TERMINATE)
        await add("second", "target")
        await reaches(runtime, 2)


async def test_a_replica_that_hears_nothing_follows_all_the_same(store, add, monkeypatch):
    monkeypatch.setattr(follower, "SECONDS_BETWEEN_LOOKS", 0.01)
    async with following(store) as runtime:
        await add("first", "target")
        await reaches(runtime, 1)
