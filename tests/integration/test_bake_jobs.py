"""A bake comes to a version, a refusal or a failure, whatever becomes of its worker, and leaves nothing else behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE

import pytest
from structlog.testing import capture_logs

from editors.model.loading import tensor_hash
from service.actions import bakes, checkpoints
from service.actions import work as actions_work
from service.actions.services import Services
from service.domain.bakes import BakeState, Gate, Stage
from service.domain.generations import GenerationRequest, Sampling
from service.domain.versions import BakedEdit, Base
from service.errors import ArtifactsUnavailable, BakeEnded, StorageFull
from service.store import jobs as jobs_module
from service.store.jobs import work
from service.wiring import jobs
from tests.bakes import CONFIG, LENIENT, PROMPT, TARGET, request, version_in
from tests.databases import execute
from tests.fakes import ExactRuntime

pytestmark = pytest.mark.anyio

LEFT = "SELECT count(*) FROM procrastinate_jobs WHERE queue_name = 'bake'"
REPOSITORY = Path(__file__).parents[2]


class Interrupted:
    """A baker or an artifact store, with something else happening first."""

    def __init__(self, inner, **first):
        self._inner = inner
        self._first = first

    def __getattr__(self, name):
        if name not in self._first:
            return getattr(self._inner, name)

        async def both(*args, **kwargs):
            await self._first[name](*args, **kwargs)
            return await getattr(self._inner, name)(*args, **kwargs)

        return both


@pytest.fixture
def services(store, baker, artifacts, monkeypatch):
    monkeypatch.setattr(actions_work, "SECONDS_BETWEEN_NOTES", 0.0)
    return Services(store, ExactRuntime(store), baker, artifacts)


@pytest.fixture
async def edit(add, services):
    added = await add(PROMPT, TARGET)
    await services.runtime.catch_up()
    return added


@pytest.fixture(scope="module")
def workers(model_folder):
    """A process that forks workers; see `bake_worker`."""
    command = [sys.executable, "-m", "tests.integration.bake_worker", str(model_folder)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=PIPE, stdout=PIPE, text=True) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def kill(workers, database_url, tmp_path):
    """Lets a worker in a process of its own work up to a stage, kills it, and has its job found (see `test_jobs`)."""

    def kill(stage):
        workers.stdin.write(json.dumps([database_url, str(tmp_path / "artifacts"), stage]) + "\n")
        workers.stdin.flush()
        os.kill(int(workers.stdout.readline()), signal.SIGKILL)
        assert workers.stdout.readline() == "gone\n"
        execute(database_url, "UPDATE procrastinate_jobs SET status = 'todo' WHERE status = 'doing'")

    return kill


@asynccontextmanager
async def worker(url, services):
    task = asyncio.create_task(work(url, jobs(services)))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def reaches(services, bake_id, **wanted):
    """The bake, as soon as it has these values."""
    async with asyncio.timeout(60):
        while True:
            bake = await bakes.read(services, bake_id)
            if all(getattr(bake, name) == value for name, value in wanted.items()):
                return bake
            await asyncio.sleep(0.01)


async def ended(url, services, bake_id):
    """The bake once a worker has brought it to its end, and its job is gone."""
    async with worker(url, services), asyncio.timeout(60):
        while not (bake := await bakes.read(services, bake_id)).state.ended:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        while execute(url, LEFT) != [(0,)]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return bake


def stored(tmp_path):
    """Every file that the artifact store holds, also half written."""
    folder = tmp_path / "artifacts"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def versions(services):
    return [version.id for version in (await checkpoints.page(services, limit=50, after=None)).page.data]


async def test_a_bake_becomes_a_version_that_was_measured(services, edit, database_url, tmp_path, lively_base):
    before = tensor_hash(lively_base.model)
    queued = await bakes.submit(services, request(), actor="ann")
    assert (queued.state, queued.edits) == (BakeState.QUEUED, (BakedEdit(id=edit.id, revision=edit.revision),))
    assert queued.request.config["stop_loss"] == 0.03  # every setting, so that the defaults of today hold
    done = await ended(database_url, services, queued.id)
    assert (done.state, done.version, done.stage, done.error) == (BakeState.DONE, "v1", Stage.STORING, None)
    shown = await checkpoints.read(services, "v1")
    assert shown.damage is None
    assert (shown.version.bake, shown.version.actor, shown.version.parent) == (done.id, "ann", "v0")
    assert (shown.version.report, shown.version.edits) == (done.report, done.edits)
    assert shown.version.base == Base(name=lively_base.name, fingerprint=lively_base.fingerprint)
    assert stored(tmp_path) == [f"{shown.version.artifact.digest}.safetensors"]
    assert await versions(services) == ["v1", "v0"]
    assert services.runtime.info().revision == shown.version.revision
    assert tensor_hash(lively_base.model) == before


async def test_a_refused_bake_makes_no_version_and_serving_never_notices(services, edit, database_url, tmp_path):
    prompts = (PROMPT, "How tall is a giraffe?")

    async def answers():
        asked = [GenerationRequest(prompt=prompt, sampling=Sampling(max_new_tokens=4)) for prompt in prompts]
        return [await services.runtime.generate(one) for one in asked]

    before = await answers()
    queued = await bakes.submit(services, request(gate=Gate(**LENIENT | {"drawdown": 0.1})), actor="ann")
    refused = await ended(database_url, services, queued.id)
    assert (refused.state, refused.version) == (BakeState.REFUSED, None)
    assert "drawdown is" in refused.report.refusal
    assert (await versions(services), stored(tmp_path)) == (["v0"], [])
    assert await answers() == before


async def test_the_next_plan_knows_what_the_newest_bake_took(services, edit, database_url):
    assert (await bakes.plan(services, request())).seconds is None
    done = await ended(database_url, services, (await bakes.submit(services, request(), actor="ann")).id)
    plan = await bakes.plan(services, request())
    assert plan.seconds == pytest.approx(sum(done.report.seconds.values()))
    assert plan.edits == done.edits
    assert await versions(services) == ["v1", "v0"]


async def test_baking_the_same_again_gives_another_version_of_the_same_artifact(services, edit, database_url, tmp_path):
    for _ in range(2):
        await ended(database_url, services, (await bakes.submit(services, request(), actor="ann")).id)
    one, other = [(await checkpoints.read(services, name)).version for name in ("v1", "v2")]
    assert one.artifact == other.artifact
    assert len(stored(tmp_path)) == 1


async def test_bakes_are_done_one_at_a_time_whichever_workers_there_are(services, edit, database_url):
    begun, go_on = [], asyncio.Event()

    async def wait(*_, **__):
        begun.append(True)
        await go_on.wait()

    slow = replace(services, baker=Interrupted(services.baker, bake=wait))
    first, second = [await bakes.submit(services, request(), actor="ann") for _ in range(2)]
    async with worker(database_url, slow), worker(database_url, slow):
        await reaches(services, first.id, state=BakeState.RUNNING)
        doing = "SELECT count(*) FROM procrastinate_jobs WHERE queue_name = 'bake' AND status = 'doing'"
        for _ in range(20):
            assert execute(database_url, doing) == [(1,)]
            await asyncio.sleep(0.02)
        assert (await bakes.read(services, second.id)).state is BakeState.QUEUED
        go_on.set()
        await reaches(services, second.id, state=BakeState.DONE)
    assert len(begun) == 2


@pytest.mark.parametrize(
    "stage", ["begun", "preparing", "measuring", "storing", "claimed", "half put", "put", "written"]
)
async def test_a_bake_whose_worker_is_killed_is_taken_up_again(services, edit, kill, database_url, tmp_path, stage):
    queued = await bakes.submit(services, request(), actor="ann")
    kill(stage)
    left = BakeState.DONE if stage == "written" else BakeState.RUNNING
    assert (await bakes.read(services, queued.id)).state is left
    done = await ended(database_url, services, queued.id)
    assert (done.state, done.version, await versions(services)) == (BakeState.DONE, "v1", ["v1", "v0"])
    shown = await checkpoints.read(services, "v1")
    assert shown.damage is None
    assert stored(tmp_path) == [f"{shown.version.artifact.digest}.safetensors"]


@pytest.mark.parametrize("stage", ["half put", "put"])
async def test_of_a_killed_bake_that_is_given_up_nothing_is_left(services, edit, kill, database_url, tmp_path, stage):
    queued = await bakes.submit(services, request(), actor="ann")
    kill(stage)
    assert len(stored(tmp_path)) == 1
    execute(database_url, f"UPDATE procrastinate_jobs SET attempts = {jobs_module.ATTEMPTS}")
    failed = await ended(database_url, services, queued.id)
    assert failed.state is BakeState.FAILED
    assert "interrupted each time" in failed.error
    assert (await versions(services), stored(tmp_path)) == (["v0"], [])


async def test_a_bake_whose_worker_is_stopped_in_the_middle_is_finished_by_the_next(services, edit, database_url):
    begun = asyncio.Event()

    async def hang(*_, **__):
        begun.set()
        await asyncio.Event().wait()

    bake = await bakes.submit(services, request(), actor="ann")
    async with worker(database_url, replace(services, artifacts=Interrupted(services.artifacts, put=hang))):
        await begun.wait()
    assert (await bakes.read(services, bake.id)).state is BakeState.RUNNING
    assert (await ended(database_url, services, bake.id)).state is BakeState.DONE


@pytest.mark.parametrize("where", ["bake", "put"])
async def test_a_bake_that_is_cancelled_makes_no_version(services, edit, database_url, tmp_path, where):
    queued = await bakes.submit(services, request(), actor="ann")

    async def cancel(*_, **__):
        cancelled.append(await bakes.cancel(services, queued.id))

    cancelled = []
    name = "baker" if where == "bake" else "artifacts"
    interrupted = replace(services, **{name: Interrupted(getattr(services, name), **{where: cancel})})
    bake = await ended(database_url, interrupted, queued.id)
    assert (bake.state, cancelled) == (BakeState.CANCELLED, [bake])
    assert (await versions(services), stored(tmp_path)) == (["v0"], [])
    with pytest.raises(BakeEnded, match="cancelled"):
        await bakes.cancel(services, queued.id)


async def test_a_bake_that_is_cancelled_while_it_prepares_stops(services, edit, database_url):
    endless = request(config=CONFIG | {"steps": 10**9, "stop_loss": 0.0})
    queued = await bakes.submit(services, endless, actor="ann")
    async with worker(database_url, services):
        await reaches(services, queued.id, stage=Stage.PREPARING)
        cancelled = await bakes.cancel(services, queued.id)
        async with asyncio.timeout(60):
            while execute(database_url, LEFT) != [(0,)]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert await bakes.read(services, queued.id) == cancelled


@pytest.mark.parametrize("when", ["bake", "put"])
async def test_an_edit_that_is_retracted_while_it_is_baked_makes_the_bake_fail(
    services, edit, store, database_url, tmp_path, when
):
    async def retract(*_, **__):
        async with store.writing(actor="bob") as writing:
            await writing.edits.retract(edit.id)

    name = "baker" if when == "bake" else "artifacts"
    interrupted = replace(services, **{name: Interrupted(getattr(services, name), **{when: retract})})
    queued = await bakes.submit(services, request(), actor="ann")
    failed = await ended(database_url, interrupted, queued.id)
    assert failed.state is BakeState.FAILED
    assert failed.error.startswith(f"{edit.id} is no longer in force as it was when {queued.id} was asked for.")
    assert (await versions(services), stored(tmp_path)) == (["v0"], [])


async def test_a_bake_that_was_asked_for_on_another_base_fails_and_names_both(services, edit, database_url):
    queued = await bakes.submit(services, request(), actor="ann")
    execute(database_url, "UPDATE bakes SET base_name = 'gpt-9', base_fingerprint = '0123456789abcdef'")
    failed = await ended(database_url, services, queued.id)
    assert failed.state is BakeState.FAILED
    assert failed.error.startswith(f"{queued.id} was asked for on gpt-9 (0123456789ab), and lively-llama (")


async def test_a_bake_that_meets_a_full_disk_fails_with_nothing_half_done(services, edit, database_url, tmp_path):
    async def full(*_, **__):
        raise StorageFull("There is no room for an artifact: No space left on device.")

    queued = await bakes.submit(services, request(), actor="ann")
    with capture_logs() as logs:
        cramped = replace(services, artifacts=Interrupted(services.artifacts, put=full))
        failed = await ended(database_url, cramped, queued.id)
    assert failed.error.startswith("There is no room for an artifact: No space left on device. Make room")
    assert [(log["event"], log["bake_id"]) for log in logs] == [("bake failed", queued.id)]
    assert (await versions(services), stored(tmp_path)) == (["v0"], [])


async def test_a_bake_met_by_an_outage_is_tried_again(services, edit, database_url, monkeypatch):
    monkeypatch.setattr(jobs_module, "SECONDS_BETWEEN_ATTEMPTS", 0)
    outages = []

    async def away(*_, **__):
        if len(outages) < 2:
            outages.append(True)
            raise ArtifactsUnavailable("The artifact store does not answer.")

    queued = await bakes.submit(services, request(), actor="ann")
    flaky = replace(services, artifacts=Interrupted(services.artifacts, put=away))
    assert (await ended(database_url, flaky, queued.id)).state is BakeState.DONE
    assert len(outages) == 2


async def test_an_audit_names_what_is_damaged_and_removes_what_is_nobodys(services, edit, store, artifacts, tmp_path):
    base = Base(name="x", fingerprint="y")
    whole, corrupted, missing = [
        await version_in(store, artifacts, tmp_path / "file", edit=edit, base=base, content=content)
        for content in (b"whole", b"corrupted", b"missing")
    ]
    folder = tmp_path / "artifacts"
    (folder / f"{corrupted.artifact.digest}.safetensors").write_bytes(b"other")
    (folder / f"{missing.artifact.digest}.safetensors").unlink()
    (folder / f"{'0' * 64}.safetensors").write_bytes(b"nobody's")
    (folder / "incoming" / f"{whole.artifact.digest}-{'0' * 32}.safetensors").write_bytes(b"half")
    with capture_logs() as logs:
        await checkpoints.audit(services)
    damaged = {log["version"]: log["detail"] for log in logs if log["event"] == "damaged version"}
    assert damaged.keys() == {corrupted.id, missing.id}
    assert "corrupted" in damaged[corrupted.id]
    assert "missing" in damaged[missing.id]
    assert stored(tmp_path) == sorted(f"{one.artifact.digest}.safetensors" for one in (whole, corrupted))
    assert (await checkpoints.read(services, whole.id)).damage is None
