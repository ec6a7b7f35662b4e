"""Evaluations come out of the store as they were put, move only forwards, and are in no editor's way."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, timedelta

import pytest
from pydantic import ValidationError

from service.domain.edits import AnswerMode, Descriptor, EditKind, Scope
from service.domain.evaluations import (
    BASE,
    SERAC,
    EvaluationCase,
    EvaluationReport,
    EvaluationRequest,
    EvaluationState,
    Failure,
    Measured,
    Mode,
    Probe,
)
from tests.databases import execute

pytestmark = pytest.mark.anyio

TEXTS = ["plain", "من هو رئيس الوزراء؟ 👩‍👩‍👧‍👦", "tab\t newline\n quote \" ' \\ \\u0000 percent % $1 :name {}", ""]
LEAST = EvaluationRequest(suite="drift")
REPORT = EvaluationReport(
    measured=(), probes=0, failures=(), failure_count=0, in_scope_betas=(), out_of_scope_betas=(), revision=0,
    version="v0", seconds=0.0,
)  # fmt: skip


def whole_request(text):
    descriptor = Descriptor(
        prompt=f"prompt {text}",
        target=text,
        kind=EditKind.SENTIMENT,
        subject=text,
        scope=Scope(in_scope=(text,), out_of_scope=("c", text), threshold=0.1 + 0.2),
        answer=AnswerMode.VERBATIM,
    )
    case = EvaluationCase(
        id=text,
        edit=descriptor,
        in_scope=(Probe(prompt=text, target=text, form=text), Probe(prompt="a")),
        out_of_scope=(Probe(prompt=text),),
        previous=text,
    )
    return EvaluationRequest(
        cases=(case, EvaluationCase(id="bare")),
        against=SERAC,
        edits_at_once=(1, 10, 100),
        metrics=("es", text),
        limit=7,
        seed=2**63 - 1,
        max_new_tokens=5,
    )


def whole_report(text):
    measured = Measured(
        metric="es", mode=Mode.TEACHER_FORCED, value=1 / 3, low=1e-300, high=1.0, cases=3, edits=10, form=text
    )
    failure = Failure(
        case=text, in_scope=True, form=text, prompt=text, expected=text, got=text, beta=0.1 + 0.2, edits=10
    )
    return EvaluationReport(
        measured=(measured, replace(measured, mode=Mode.GENERATED, form=None)),
        probes=2**40,
        failures=(failure, replace(failure, in_scope=False, beta=None)),
        failure_count=5,
        in_scope_betas=(0.0, 1.0, 5e-324, 0.1),
        out_of_scope_betas=(),
        revision=17,
        version="v0",
        seconds=12.25,
    )


@pytest.fixture
def queue(store):
    """Adds a queued evaluation, and starts it if asked to."""

    async def queue(request=LEAST, *, started=False, total=100):
        async with store.recording() as recording:
            evaluation = await recording.evaluations.add(request, actor="ann", total=total)
            return await recording.evaluations.start(evaluation.id) if started else evaluation

    return queue


async def read(store, evaluation_id):
    async with store.reading() as reading:
        return await reading.evaluations.get(evaluation_id)


@pytest.mark.parametrize("text", TEXTS)
async def test_every_field_of_an_evaluation_comes_back_as_it_was_put(store, queue, text):
    queued = await queue(whole_request(text))
    assert await read(store, queued.id) == queued
    assert queued.request == whole_request(text)
    assert (queued.state, queued.actor, queued.done, queued.total) == (EvaluationState.QUEUED, "ann", 0, 100)
    assert (queued.started_at, queued.finished_at, queued.report, queued.error) == (None, None, None, None)
    assert queued.created_at.tzinfo is UTC
    async with store.recording() as recording:
        started = await recording.evaluations.start(queued.id)
        await recording.evaluations.finish(queued.id, whole_report(text))
    done = await read(store, queued.id)
    assert done.report == whole_report(text)
    assert (done.state, done.done, done.total) == (EvaluationState.DONE, 2**40, 2**40)
    assert done.created_at <= started.started_at == done.started_at <= done.finished_at


@pytest.mark.parametrize("request_", [LEAST, EvaluationRequest(edits=("e1", "e2"), against=BASE)])
async def test_one_that_was_answered_at_once_is_kept_as_done(store, request_, database_url):
    report = whole_report("x")
    async with store.recording() as recording:
        evaluation = await recording.evaluations.add_done(request_, report, actor="ann")
    assert await read(store, evaluation.id) == evaluation
    assert (evaluation.state, evaluation.request, evaluation.report) == (EvaluationState.DONE, request_, report)
    assert evaluation.finished_at - evaluation.started_at == timedelta(seconds=12.25)
    assert queued_jobs(database_url) == []


async def test_what_a_model_wrote_is_kept_but_for_the_nul_character(store, queue):
    (failure, _) = whole_report("x").failures
    evaluation = await queue(started=True)
    async with store.recording() as recording:
        report = replace(REPORT, failures=(replace(failure, got="a\0b", expected="\0"),))
        await recording.evaluations.finish(evaluation.id, report)
    (kept,) = (await read(store, evaluation.id)).report.failures
    assert (kept.got, kept.expected) == ("a\ufffdb", "\ufffd")


async def test_a_report_that_could_not_be_read_back_is_not_written(store, queue):
    evaluation = await queue(started=True)
    with pytest.raises(ValidationError):
        async with store.recording() as recording:
            await recording.evaluations.finish(evaluation.id, replace(REPORT, seconds=float("nan")))
    assert (await read(store, evaluation.id)).state is EvaluationState.RUNNING


async def test_an_evaluation_whose_worker_was_killed_starts_again_from_the_beginning(store, queue):
    evaluation = await queue(started=True)
    async with store.recording() as recording:
        assert await recording.evaluations.advance(evaluation.id, 40)
    assert (await read(store, evaluation.id)).done == 40
    async with store.recording() as recording:
        again = await recording.evaluations.start(evaluation.id)
    assert (again.state, again.done, again.request) == (EvaluationState.RUNNING, 0, LEAST)
    assert again.started_at > evaluation.started_at


async def test_an_evaluation_that_has_ended_does_not_move(store, queue):
    ends = []
    for end in ("finish", "fail", "cancel"):
        evaluation = await queue(started=True)
        async with store.recording() as recording:
            await {
                "finish": lambda e: recording.evaluations.finish(e, REPORT),
                "fail": lambda e: recording.evaluations.fail(e, "It broke."),
                "cancel": recording.evaluations.cancel,
            }[end](evaluation.id)
        ends.append(await read(store, evaluation.id))
    assert [evaluation.state for evaluation in ends] == ["done", "failed", "cancelled"]
    assert [evaluation.error for evaluation in ends] == [None, "It broke.", None]
    assert all(evaluation.finished_at for evaluation in ends)
    for evaluation in ends:
        async with store.recording() as recording:
            assert await recording.evaluations.start(evaluation.id) is None
            assert not await recording.evaluations.advance(evaluation.id, 5)
            await recording.evaluations.finish(evaluation.id, whole_report("late"))
            await recording.evaluations.fail(evaluation.id, "late")
            assert await recording.evaluations.cancel(evaluation.id) == evaluation
        assert await read(store, evaluation.id) == evaluation


async def test_one_that_is_queued_can_be_cancelled_and_can_fail_and_can_do_nothing_else(store, queue):
    cancelled, failed = await queue(), await queue()
    async with store.recording() as recording:
        assert not await recording.evaluations.advance(cancelled.id, 5)
        await recording.evaluations.finish(cancelled.id, REPORT)
        assert (await recording.evaluations.cancel(cancelled.id)).state is EvaluationState.CANCELLED
        await recording.evaluations.fail(failed.id, "Never begun.")
    assert (await read(store, failed.id)).error == "Never begun."


@pytest.mark.parametrize("name", ["ev99", "ev0", "17", "e1", "ev01", "", "é", "ev" + "9" * 30])
async def test_what_is_not_there_is_not_found(store, queue, name):
    await queue()
    assert await read(store, name) is None
    async with store.recording() as recording:
        assert await recording.evaluations.start(name) is None
        assert await recording.evaluations.cancel(name) is None
        assert not await recording.evaluations.advance(name, 1)


async def test_evaluations_come_in_pages_newest_first_without_what_may_be_long(store, queue):
    for _ in range(3):
        await queue(whole_request("x"), started=True)
    async with store.recording() as recording:
        await recording.evaluations.finish("ev3", whole_report("x"))
    async with store.reading() as reading:
        first = await reading.evaluations.page(limit=2, after=None)
        second = await reading.evaluations.page(limit=2, after="ev2")
        assert (await reading.evaluations.page(limit=2, after="nonsense")).data == ()
    assert [[evaluation.id for evaluation in page.data] for page in (first, second)] == [["ev3", "ev2"], ["ev1"]]
    assert (first.has_more, second.has_more) == (True, False)
    whole = await read(store, "ev3")
    short = replace(whole.report, failures=(), in_scope_betas=(), out_of_scope_betas=())
    assert first.data[0] == replace(whole, request=replace(whole.request, cases=()), report=short)


async def test_evaluations_take_no_revision_and_neither_wait_for_editors_nor_stop_them(store, add, queue):
    async with store.writing(actor="slow editor"):
        evaluation = await queue(started=True)
    async with store.recording() as recording:
        assert await recording.evaluations.advance(evaluation.id, 1)
        await add()
    async with store.reading() as reading:
        assert await reading.changes.revision() == 1
        assert (await reading.evaluations.get(evaluation.id)).done == 1


async def test_the_row_and_its_job_commit_or_vanish_together(store, queue, database_url):
    with pytest.raises(RuntimeError, match="halfway"):
        async with store.recording() as recording:
            await recording.evaluations.add(LEAST, actor="ann", total=100)
            raise RuntimeError("halfway")
    assert queued_jobs(database_url) == []
    async with store.reading() as reading:
        assert (await reading.evaluations.page(limit=10, after=None)).data == ()
    evaluation = await queue()
    assert queued_jobs(database_url) == [("evaluate", "evaluate", "todo", {"subject_id": evaluation.id})]


async def test_of_a_cancellation_and_an_end_that_meet_the_first_holds(store, queue, database_url):
    async def cancel():
        async with store.recording() as recording:
            return await recording.evaluations.cancel(evaluation.id)

    evaluation = await queue(started=True)
    async with store.recording() as recording:
        await recording.evaluations.finish(evaluation.id, REPORT)
        cancelling = asyncio.create_task(cancel())
        while execute(database_url, "SELECT count(*) FROM pg_locks WHERE NOT granted") == [(0,)]:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert (await cancelling).state is EvaluationState.DONE


def queued_jobs(url):
    return execute(url, "SELECT queue_name, task_name, status::text, args FROM procrastinate_jobs ORDER BY id")
