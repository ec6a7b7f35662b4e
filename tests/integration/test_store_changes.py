"""The change log: its order is the order of commits, and it says what changed."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack

import psycopg
import pytest

from service.domain.changes import ChangeKind
from service.domain.edits import Descriptor, EditState, Embeddings, NewEdit
from service.store.store import PostgresStore
from tests.databases import conninfo

pytestmark = pytest.mark.anyio

EMBEDDINGS = Embeddings(encoder="test", vectors=b"")


async def test_a_follower_of_sixteen_writers_on_four_replicas_never_skips_a_revision(database_url):
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(PostgresStore(database_url)) for _ in range(4)]
        writers = asyncio.gather(*(_write(replicas[number % 4], f"prompt {number}") for number in range(16)))
        seen: list[int] = []
        while len(seen) < 16:
            assert not (writers.done() and writers.exception())
            async with replicas[0].reading() as reading:
                seen += [change.revision for change in await reading.changes.since(len(seen), limit=100)]
            assert seen == list(range(1, len(seen) + 1))
        assert sorted(edit.revision for edit in await writers) == seen


async def test_what_a_follower_sees_of_an_edit_is_there_to_be_read(store, add):
    edit = await add()
    async with store.reading() as reading:
        (change,) = await reading.changes.since(0, limit=10)
        assert await reading.edits.get(change.subject_id) == edit
    assert (change.revision, change.at) == (edit.revision, edit.created_at)


async def test_a_transaction_that_raises_leaves_no_trace(store, add):
    kept = await add("kept")
    with pytest.raises(RuntimeError, match="halfway"):
        async with store.writing(actor="tester") as writing:
            await writing.edits.add(NewEdit(descriptor=Descriptor(prompt="lost")), EMBEDDINGS)
            await writing.edits.retract(kept.id)
            assert await writing.changes.revision() == 3
            raise RuntimeError("halfway")
    async with store.reading() as reading:
        assert [stored.edit for stored in await reading.edits.active()] == [kept]
        assert await reading.changes.revision() == 1
    assert (await add("next")).revision == 2


async def test_a_cancelled_transaction_leaves_no_trace_and_frees_the_lock(store, add):
    inside = asyncio.Event()

    async def write() -> None:
        async with store.writing(actor="tester") as writing:
            await writing.edits.add(NewEdit(descriptor=Descriptor(prompt="lost")), EMBEDDINGS)
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await add("next")).revision == 1


async def test_a_reading_sees_one_moment(store, add):
    await add("before")
    async with store.reading() as reading:
        assert await reading.edits.count() == 1
        await add("meanwhile")
        assert await reading.edits.count() == 1
        assert await reading.changes.revision() == 1


async def test_the_history_of_an_edit_says_who_did_what_and_why(store):
    old = Descriptor(prompt="Who is the prime minister?", target="Theresa May")
    new = Descriptor(prompt="Who is the prime minister?", target="Boris Johnson")
    async with store.writing(actor="ann") as writing:
        first = await writing.edits.add(NewEdit(descriptor=old, reason="news", state=EditState.DRAFT), EMBEDDINGS)
    async with store.writing(actor="bob") as writing:
        second = await writing.edits.add(NewEdit(descriptor=new, supersedes=first.id), EMBEDDINGS)
        await writing.edits.retract(first.id, reason="an election", superseded_by=second.id)
    async with store.writing(actor="cid") as writing:
        await writing.edits.retract(second.id, reason="another")
    async with store.reading() as reading:
        told = [
            (c.revision, c.kind, c.actor, c.reason, c.payload)
            for edit in (first, second)
            for c in await reading.changes.of(edit.id)
        ]
        every = await reading.changes.since(0, limit=10)
        assert await reading.changes.since(1, limit=2) == every[1:3]
        assert await reading.changes.of("e99") == ()
    assert [change.at for change in every] == sorted(change.at for change in every)
    asked = {"kind": "qa", "prompt": old.prompt}
    draft = asked | {"target": old.target, "state": "draft", "supersedes": None}
    active = asked | {"target": new.target, "state": "active", "supersedes": first.id}
    assert told == [
        (1, ChangeKind.EDIT_ADDED, "ann", "news", draft),
        (3, ChangeKind.EDIT_SUPERSEDED, "bob", "an election", {"previous_state": "draft", "superseded_by": second.id}),
        (2, ChangeKind.EDIT_ADDED, "bob", None, active),
        (4, ChangeKind.EDIT_RETRACTED, "cid", "another", {"previous_state": "active"}),
    ]


async def test_whoever_listens_is_told_of_a_change_once_it_is_committed(store, add, database_url):
    async with await psycopg.AsyncConnection.connect(conninfo(database_url), autocommit=True) as listener:
        await listener.execute("LISTEN errata_changes")
        async with store.writing(actor="tester"):
            pass
        edit = await add()
        told = [notice.channel async for notice in listener.notifies(timeout=10, stop_after=1)]
        async with store.reading() as reading:
            assert await reading.edits.get(edit.id) == edit
        assert told == ["errata_changes"]
        assert [notice async for notice in listener.notifies(timeout=0)] == []


async def _write(store, prompt):
    async with store.writing(actor=prompt) as writing:
        edit = await writing.edits.add(NewEdit(descriptor=Descriptor(prompt=prompt)), EMBEDDINGS)
        await asyncio.sleep(random.uniform(0, 0.02))
        return edit
