"""Bakes and versions come out of the store as they were put; bakes move only forwards, and versions not at all."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC

import psycopg
import pytest
from pydantic import ValidationError

from service.domain.artifacts import Artifact
from service.domain.bakes import BakeState, Stage
from service.domain.changes import ChangeKind
from service.domain.versions import BakedEdit
from tests.bakes import new_bake, new_version, report
from tests.databases import execute

pytestmark = pytest.mark.anyio

TEXTS = ["plain", "من هو رئيس الوزراء؟ 👩‍👩‍👧‍👦", "tab\t newline\n quote \" ' \\ \\u0000 percent % $1 :name {}", ""]
OTHER = Artifact(digest="b" * 64, size=1)


@pytest.fixture
async def baked(add):
    """Two edits as they are baked."""
    edits = [await add(), await add("Who is the king?", "Bob")]
    return tuple(BakedEdit(id=edit.id, revision=edit.revision) for edit in edits)


@pytest.fixture
def queue(store, baked):
    """Adds a queued bake, and starts it if asked to."""

    async def queue(text="x", *, started=False):
        async with store.recording() as recording:
            bake = await recording.bakes.add(new_bake(*baked, text=text), actor="ann")
            return await recording.bakes.start(bake.id) if started else bake

    return queue


@pytest.fixture
def write(store, baked):
    """Adds a version and finishes a bake by it."""

    async def write(bake, text="x", **new):
        async with store.writing(actor="ann") as writing:
            version = await writing.versions.add(new_version(*baked, text=text, **new))
            assert await writing.bakes.finish(bake.id, report(text), version=version.id)
        return await read_version(store, version.id)

    return write


async def read(store, bake_id):
    async with store.reading() as reading:
        return await reading.bakes.get(bake_id)


async def read_version(store, version_id):
    async with store.reading() as reading:
        return await reading.versions.get(version_id)


@pytest.mark.parametrize("text", TEXTS)
async def test_every_field_of_a_bake_comes_back_as_it_was_put(store, queue, baked, write, text):
    bake, new = await queue(text), new_bake(*baked, text=text)
    assert await read(store, bake.id) == bake
    assert (bake.request, bake.base, bake.edits, bake.parent) == (new.request, new.base, baked, "v0")
    assert (bake.state, bake.actor, bake.stage, bake.percent) == (BakeState.QUEUED, "ann", None, 0)
    assert (bake.started_at, bake.finished_at, bake.report, bake.version, bake.error) == (None,) * 5
    assert bake.created_at.tzinfo is UTC
    async with store.recording() as recording:
        await recording.bakes.start(bake.id)
        assert await recording.bakes.advance(bake.id, Stage.MEASURING, 40)
    running = await read(store, bake.id)
    assert (running.state, running.stage, running.percent) == (BakeState.RUNNING, Stage.MEASURING, 40)
    version = await write(bake, text)
    done = await read(store, bake.id)
    assert (done.state, done.report, done.version) == (BakeState.DONE, report(text), version.id)
    assert done.created_at <= done.started_at <= done.finished_at


@pytest.mark.parametrize("text", TEXTS)
async def test_every_field_of_a_version_comes_back_as_it_was_put(store, queue, baked, write, text):
    bake, new = await queue(started=True), new_version(*baked, text=text)
    version = await write(bake, text)
    assert (version.id, version.bake, version.actor, version.parent) == ("v1", bake.id, "ann", "v0")
    kept = ("base", "edits", "method", "config", "report", "artifact")
    assert [getattr(version, name) for name in kept] == [getattr(new, name) for name in kept]
    assert version.created_at.tzinfo is UTC


async def test_adding_a_version_is_a_change_that_names_its_edits(store, queue, write):
    version = await write(await queue(started=True))
    async with store.reading() as reading:
        (change,) = await reading.changes.of(version.id)
        assert await reading.changes.revision() == change.revision == version.revision == 3
    assert (change.kind, change.actor) == (ChangeKind.VERSION_ADDED, "ann")
    assert change.payload == {"method": "x", "edits": ["e1", "e2"], "digest": "a" * 64}


async def test_versions_are_numbered_without_gaps_also_after_one_that_was_undone(store, queue, write, baked):
    await write(await queue(started=True))
    with pytest.raises(RuntimeError, match="halfway"):
        async with store.writing(actor="ann") as writing:
            assert (await writing.versions.add(new_version(*baked))).id == "v2"
            raise RuntimeError("halfway")
    assert (await write(await queue(started=True), artifact=OTHER)).id == "v2"
    async with store.reading() as reading:
        assert [name for name, _ in await reading.versions.artifacts()] == ["v1", "v2"]


@pytest.mark.parametrize("table", ["versions", "version_edits"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET revision = 99", "DELETE FROM {}"])
async def test_the_database_itself_refuses_to_change_a_version(queue, write, database_url, table, statement):
    await write(await queue(started=True))
    with pytest.raises(psycopg.errors.RaiseException, match=f"rows of {table} are never changed"):
        execute(database_url, statement.format(table))


async def test_what_a_model_wrote_is_kept_but_for_the_nul_character(store, queue):
    bake, whole = await queue(started=True), report(refusal="Too much.")
    failures = (replace(whole.failures[0], got="a\0b", expected="\0"),)
    async with store.recording() as recording:
        await recording.bakes.refuse(bake.id, replace(whole, failures=failures))
    (kept,) = (await read(store, bake.id)).report.failures
    assert (kept.got, kept.expected) == ("a\ufffdb", "\ufffd")


async def test_a_report_that_could_not_be_read_back_is_not_written(store, queue):
    bake = await queue(started=True)
    with pytest.raises(ValidationError):
        async with store.recording() as recording:
            await recording.bakes.refuse(bake.id, replace(report(), seconds={"preparing": float("nan")}))
    assert (await read(store, bake.id)).state is BakeState.RUNNING


async def test_a_bake_whose_worker_was_killed_starts_again_from_the_beginning(store, queue):
    bake = await queue(started=True)
    async with store.recording() as recording:
        assert await recording.bakes.advance(bake.id, Stage.STORING, 40)
        assert await recording.bakes.claim(bake.id, OTHER)
    async with store.recording() as recording:
        again = await recording.bakes.start(bake.id)
    assert (again.state, again.stage, again.percent) == (BakeState.RUNNING, None, 0)
    async with store.recording() as recording:
        assert await recording.bakes.artifacts() == (set(), {OTHER.digest})


@pytest.mark.parametrize("end", ["finish", "refuse", "fail", "cancel"])
async def test_a_bake_that_has_ended_does_not_move(store, queue, write, baked, end):
    bake = await queue(started=True)
    async with store.recording() as recording:
        if end == "refuse":
            await recording.bakes.refuse(bake.id, report(refusal="Too much."))
        elif end == "fail":
            await recording.bakes.fail(bake.id, "It broke.")
        elif end == "cancel":
            await recording.bakes.cancel(bake.id)
    if end == "finish":
        await write(bake)
    ended = await read(store, bake.id)
    assert ended.state.ended
    assert ended.finished_at
    async with store.recording() as recording:
        assert await recording.bakes.start(bake.id) is None
        assert not await recording.bakes.advance(bake.id, Stage.STORING, 5)
        assert not await recording.bakes.claim(bake.id, OTHER)
        await recording.bakes.refuse(bake.id, report("late"))
        await recording.bakes.fail(bake.id, "late")
        assert await recording.bakes.cancel(bake.id) == ended
    with pytest.raises(RuntimeError, match="undone"):
        async with store.writing(actor="late") as writing:
            version = await writing.versions.add(new_version(*baked))
            assert not await writing.bakes.finish(bake.id, report("late"), version=version.id)
            raise RuntimeError("undone")
    assert await read(store, bake.id) == ended


@pytest.mark.parametrize("name", ["b99", "b0", "17", "e1", "b01", "", "é", "b" + "9" * 30])
async def test_what_is_not_there_is_not_found(store, queue, name):
    await queue()
    assert await read(store, name) is None
    assert await read_version(store, name.replace("b", "v")) is None
    async with store.recording() as recording:
        assert await recording.bakes.start(name) is None
        assert await recording.bakes.cancel(name) is None
        assert not await recording.bakes.advance(name, Stage.STORING, 1)


async def test_bakes_and_versions_come_in_pages_newest_first_without_their_failures(store, queue, write):
    bakes = [await queue(started=True) for _ in range(3)]
    for bake in bakes:
        await write(bake)
    async with store.reading() as reading:
        for reader, prefix in ((reading.bakes, "b"), (reading.versions, "v")):
            first = await reader.page(limit=2, after=None)
            second = await reader.page(limit=2, after=f"{prefix}2")
            ids = [[one.id for one in page.data] for page in (first, second)]
            assert ids == [[f"{prefix}3", f"{prefix}2"], [f"{prefix}1"]]
            assert (first.has_more, second.has_more) == (True, False)
            whole = await reader.get(f"{prefix}3")
            assert first.data[0] == replace(whole, report=replace(whole.report, failures=()))
            assert (await reader.page(limit=2, after="nonsense")).data == ()


async def test_the_newest_bake_with_a_method_is_that_which_was_measured(store, queue, write):
    done = await queue("rome", started=True)
    await write(done, "rome")
    refused, unmeasured = await queue("rome", started=True), await queue("rome", started=True)
    async with store.recording() as recording:
        await recording.bakes.refuse(refused.id, report(refusal="Too much."))
        await recording.bakes.refuse(unmeasured.id, replace(report(refusal="It gave up."), probes=0))
    await queue("rome")
    async with store.reading() as reading:
        assert (await reading.bakes.newest_measured("rome")).id == refused.id
        assert await reading.bakes.newest_measured("mend") is None


async def test_the_row_and_its_job_commit_or_vanish_together_and_bakes_wait_for_each_other(
    store, queue, baked, database_url
):
    query = "SELECT queue_name, task_name, lock, args FROM procrastinate_jobs ORDER BY id"
    with pytest.raises(RuntimeError, match="halfway"):
        async with store.recording() as recording:
            await recording.bakes.add(new_bake(*baked), actor="ann")
            raise RuntimeError("halfway")
    assert execute(database_url, query) == []
    bake = await queue()
    assert execute(database_url, query) == [("bake", "bake", "bake", {"subject_id": bake.id})]


async def test_versions_name_artifacts_and_running_bakes_claim_them_and_others_do_not(store, queue, write):
    await write(await queue(started=True))
    running, cancelled = await queue(started=True), await queue(started=True)
    async with store.recording() as recording:
        assert await recording.bakes.claim(running.id, OTHER)
        assert await recording.bakes.claim(cancelled.id, Artifact(digest="c" * 64, size=1))
        await recording.bakes.cancel(cancelled.id)
    async with store.recording() as recording:
        assert await recording.bakes.artifacts() == ({"a" * 64}, {"b" * 64})


async def test_nothing_is_claimed_while_artifacts_are_collected(store, queue, database_url):
    bake = await queue(started=True)

    async def claim():
        async with store.recording() as recording:
            return await recording.bakes.claim(bake.id, OTHER)

    async with store.recording() as recording:
        assert await recording.bakes.artifacts() == (set(), set())
        claiming = asyncio.create_task(claim())
        while execute(database_url, "SELECT count(*) FROM pg_locks WHERE NOT granted") == [(0,)]:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert not claiming.done()
    assert await claiming
