"""Jobs are done once they are queued, also when a worker is stopped or killed in the middle, and not without end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.actions import evaluations
from service.actions import work as actions_work
from service.actions.services import Services
from service.domain.evaluations import EvaluationReport, EvaluationRequest, EvaluationState
from service.errors import EditTooLong, EvaluationEnded, StoreUnavailable
from service.store import jobs as jobs_module
from service.store.jobs import Job, work
from service.wiring import jobs
from tests.databases import execute

pytestmark = pytest.mark.anyio

REQUEST = EvaluationRequest(suite="drift")
REPORT = EvaluationReport(
    measured=(), probes=100, failures=(), failure_count=0, in_scope_betas=(), out_of_scope_betas=(), revision=0,
    version="v0", seconds=1.0,
)  # fmt: skip
OLD_HEARTBEATS = "UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 hour'"
LEFT = "SELECT count(*) FROM procrastinate_jobs WHERE queue_name = 'evaluate'"
REPOSITORY = Path(__file__).parents[2]
BAKE = """
INSERT INTO procrastinate_jobs (queue_name, task_name, args) VALUES ('bake', 'bake', '{"subject_id": "b1"}')
"""
KILLED = """
import asyncio, sys
from service.store.jobs import Job, work

async def hang(subject_id):
    print(subject_id, flush=True)
    await asyncio.Event().wait()

asyncio.run(work(sys.argv[1], {"evaluate": Job(run=hang, give_up=None)}))
"""


class SteppedRuntime:
    """Judges a probe each time the test says so; `outcome` ends it at once instead."""

    def __init__(self):
        self.outcome = None
        self.begun = asyncio.Event()
        self.steps = asyncio.Queue()
        self.runs = 0

    async def plan(self, request):
        return 100

    async def evaluate(self, request, *, progress):
        self.runs += 1
        self.begun.set()
        if self.outcome is not None:
            raise self.outcome
        for done in range(1, 101):
            if not await progress(done):
                return None
            if await self.steps.get() == "finish":
                return REPORT
        return None


@pytest.fixture
def services(store, monkeypatch):
    monkeypatch.setattr(actions_work, "SECONDS_BETWEEN_NOTES", 0.0)
    return Services(store, SteppedRuntime(), None, None)


@asynccontextmanager
async def worker(url, kinds):
    task = asyncio.create_task(work(url, kinds))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def reaches(services, evaluation_id, **wanted):
    """The evaluation, as soon as it has these values."""
    async with asyncio.timeout(60):
        while True:
            evaluation = await evaluations.read(services, evaluation_id)
            if all(getattr(evaluation, name) == value for name, value in wanted.items()):
                return evaluation
            await asyncio.sleep(0.01)


async def gone(url, left=0):
    async with asyncio.timeout(60):
        while execute(url, LEFT) != [(left,)]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_queued_evaluation_is_run_with_progress_and_its_job_is_deleted(services, database_url):
    queued = await evaluations.submit(services, REQUEST, actor="ann")
    assert (queued.state, queued.total) == (EvaluationState.QUEUED, 100)
    async with worker(database_url, jobs(services)):
        services.runtime.steps.put_nowait("go on")
        running = await reaches(services, queued.id, done=2)
        assert running.state is EvaluationState.RUNNING
        services.runtime.steps.put_nowait("finish")
        done = await reaches(services, queued.id, state=EvaluationState.DONE)
        await gone(database_url)
    assert (done.report, done.done) == (REPORT, 100)


async def test_a_worker_that_runs_already_takes_a_new_evaluation_and_one_at_a_time(services, database_url):
    async with worker(database_url, jobs(services)):
        first = await evaluations.submit(services, REQUEST, actor="ann")
        await reaches(services, first.id, done=1)
        second = await evaluations.submit(services, REQUEST, actor="ann")
        services.runtime.steps.put_nowait("go on")
        await reaches(services, first.id, done=2)
        assert (await evaluations.read(services, second.id)).state is EvaluationState.QUEUED
        for _ in range(2):
            services.runtime.steps.put_nowait("finish")
        await reaches(services, second.id, state=EvaluationState.DONE)
    assert services.runtime.runs == 2


async def test_an_evaluation_whose_worker_is_stopped_in_the_middle_is_finished_by_the_next(services, database_url):
    evaluation = await evaluations.submit(services, REQUEST, actor="ann")
    async with worker(database_url, jobs(services)) as first:
        await reaches(services, evaluation.id, done=1)
    assert first.cancelled()
    assert (await evaluations.read(services, evaluation.id)).state is EvaluationState.RUNNING
    async with worker(database_url, jobs(services)):
        services.runtime.steps.put_nowait("finish")
        await reaches(services, evaluation.id, state=EvaluationState.DONE)
        await gone(database_url)
    assert services.runtime.runs == 2


async def test_an_evaluation_whose_worker_was_killed_is_finished_by_the_next(services, database_url):
    evaluation = await evaluations.submit(services, REQUEST, actor="ann")
    killed = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, database_url, cwd=REPOSITORY, stdout=subprocess.PIPE
    )
    assert (await killed.stdout.readline()).decode().strip() == evaluation.id
    killed.kill()
    await killed.wait()
    execute(database_url, OLD_HEARTBEATS)
    async with worker(database_url, jobs(services)):
        services.runtime.steps.put_nowait("finish")
        await reaches(services, evaluation.id, state=EvaluationState.DONE)


async def test_the_job_of_a_worker_that_is_alive_is_left_to_it(services, database_url):
    evaluation = await evaluations.submit(services, REQUEST, actor="ann")
    other = Services(services.store, SteppedRuntime(), None, None)
    async with worker(database_url, jobs(services)):
        await reaches(services, evaluation.id, done=1)
        async with worker(database_url, jobs(other)):
            later = await evaluations.submit(services, REQUEST, actor="ann")
            other.runtime.steps.put_nowait("finish")
            await reaches(services, later.id, state=EvaluationState.DONE)
    assert (services.runtime.runs, other.runtime.runs) == (1, 1)


async def test_a_running_evaluation_that_is_cancelled_stops_at_its_next_note(services, database_url):
    evaluation = await evaluations.submit(services, REQUEST, actor="ann")
    async with worker(database_url, jobs(services)):
        await reaches(services, evaluation.id, done=1)
        cancelled = await evaluations.cancel(services, evaluation.id)
        assert cancelled.state is EvaluationState.CANCELLED
        services.runtime.steps.put_nowait("go on")
        await gone(database_url)
    assert await evaluations.read(services, evaluation.id) == cancelled
    with pytest.raises(EvaluationEnded, match="cancelled"):
        await evaluations.cancel(services, evaluation.id)


async def test_a_queued_evaluation_that_is_cancelled_is_never_begun(services, database_url):
    evaluation = await evaluations.submit(services, REQUEST, actor="ann")
    await evaluations.cancel(services, evaluation.id)
    async with worker(database_url, jobs(services)):
        await gone(database_url)
    assert services.runtime.runs == 0


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (EditTooLong("Case 7 is too long.", hint="Shorten it."), "Case 7 is too long. Shorten it."),
        (ZeroDivisionError("a secret of ours"), "Something unexpected went wrong."),
    ],
)
async def test_an_evaluation_that_raises_has_failed_and_says_why_and_is_not_tried_again(
    services, database_url, outcome, said
):
    services.runtime.outcome = outcome
    evaluation = await evaluations.submit(services, REQUEST, actor="ann")
    with capture_logs() as logs:
        async with worker(database_url, jobs(services)):
            failed = await reaches(services, evaluation.id, state=EvaluationState.FAILED)
            await gone(database_url)
    assert failed.error.startswith(said)
    assert "secret" not in failed.error
    assert [(log["event"], log["evaluation_id"]) for log in logs] == [("evaluation failed", evaluation.id)]
    assert services.runtime.runs == 1


async def test_an_evaluation_met_by_an_outage_is_tried_again(services, database_url, monkeypatch):
    monkeypatch.setattr(jobs_module, "SECONDS_BETWEEN_ATTEMPTS", 0)
    services.runtime.outcome = StoreUnavailable("PostgreSQL does not answer.")
    evaluation = await evaluations.submit(services, REQUEST, actor="ann")
    async with worker(database_url, jobs(services)):
        await services.runtime.begun.wait()
        services.runtime.outcome = None
        services.runtime.steps.put_nowait("finish")
        await reaches(services, evaluation.id, state=EvaluationState.DONE)


async def test_progress_that_cannot_be_noted_does_not_end_the_work(services, database_url, monkeypatch):
    evaluation = await evaluations.submit(services, REQUEST, actor="ann")
    async with worker(database_url, jobs(services)):
        await reaches(services, evaluation.id, done=1)
        with monkeypatch.context() as patch, capture_logs() as logs:
            patch.setattr(services.store, "recording", _unavailable)
            services.runtime.steps.put_nowait("go on")
            while not logs:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert [log["event"] for log in logs] == ["progress was not noted"]
        services.runtime.steps.put_nowait("finish")
        assert (await reaches(services, evaluation.id, state=EvaluationState.DONE)).report == REPORT


async def test_progress_is_noted_now_and_then_only(services, database_url, monkeypatch):
    monkeypatch.setattr(actions_work, "SECONDS_BETWEEN_NOTES", 3600.0)
    evaluation = await evaluations.submit(services, REQUEST, actor="ann")
    async with worker(database_url, jobs(services)):
        for step in ("go on", "go on", "go on"):
            services.runtime.steps.put_nowait(step)
        await reaches(services, evaluation.id, done=1)
        while services.runtime.steps.qsize():  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert (await evaluations.read(services, evaluation.id)).done == 1


async def test_a_job_that_is_interrupted_each_time_is_given_up(services, database_url):
    evaluation = await evaluations.submit(services, REQUEST, actor="ann")
    execute(database_url, f"UPDATE procrastinate_jobs SET attempts = {jobs_module.ATTEMPTS}")
    async with worker(database_url, jobs(services)):
        failed = await reaches(services, evaluation.id, state=EvaluationState.FAILED)
        await gone(database_url)
    assert "interrupted each time" in failed.error
    assert services.runtime.runs == 0


async def test_a_worker_leaves_the_kinds_of_job_that_it_does_not_know(services, database_url):
    done = asyncio.Event()

    async def bake(_):
        done.set()

    evaluation = await evaluations.submit(services, REQUEST, actor="ann")
    execute(database_url, BAKE)
    async with worker(database_url, {"bake": Job(run=bake, give_up=bake)}):
        await done.wait()
    assert (await evaluations.read(services, evaluation.id)).state is EvaluationState.QUEUED


async def test_a_worker_looks_again_for_a_database_that_was_away(services, database_url):
    async with worker(database_url, jobs(services)):
        first = await evaluations.submit(services, REQUEST, actor="ann")
        services.runtime.steps.put_nowait("finish")
        await reaches(services, first.id, state=EvaluationState.DONE)
        await gone(database_url)
        execute(
            database_url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid != pg_backend_pid()",
        )
        second = await evaluations.submit(services, REQUEST, actor="ann")
        services.runtime.steps.put_nowait("finish")
        await reaches(services, second.id, state=EvaluationState.DONE)


def _unavailable():
    raise StoreUnavailable("PostgreSQL does not answer.")
