"""Versions are served, follow each other, and go back, and the memory serves exactly what they do not contain."""

from __future__ import annotations

import asyncio
import threading
from itertools import pairwise

import pytest

from editors.model.loading import load_base, tensor_hash
from service.actions import bakes, checkpoints
from service.actions.services import Services
from service.domain.bakes import BakeState, Gate
from service.domain.edits import AnswerMode, Descriptor
from service.domain.generations import GenerationRequest, Sampling, Source
from service.domain.serving import Serving
from service.domain.versions import Base
from service.errors import VersionUnavailable
from tests.bakes import LENIENT, PROMPT, TARGET, request, version_in
from tests.fakes import client_of
from tests.runtimes import post

pytestmark = pytest.mark.anyio

UK = Descriptor(prompt=PROMPT, target=TARGET, answer=AnswerMode.VERBATIM)
SKY = Descriptor(prompt="What colour is the sky?", target="green", answer=AnswerMode.VERBATIM)
OTHER = "How tall is a giraffe?"


@pytest.fixture
async def runtime(store, start_runtime, lively_base):
    return await start_runtime(store, base=lively_base)


@pytest.fixture
def services(store, runtime, baker, artifacts):
    return Services(store, runtime, baker, artifacts)


@pytest.fixture
async def client(services):
    async with client_of(services) as client:
        yield client


@pytest.fixture
def bake(services):
    """Bakes these edits in this process, until there is a version."""

    async def bake(*edits, **changed):
        queued = await bakes.submit(services, request(edits=tuple(e.id for e in edits), **changed), actor="tester")
        await bakes.run(services, queued.id)
        done = await bakes.read(services, queued.id)
        assert done.state is BakeState.DONE, done.report
        return done.version

    return bake


async def ask(runtime, prompt=PROMPT, **wanted):
    return await runtime.generate(GenerationRequest(prompt=prompt, sampling=Sampling(max_new_tokens=12), **wanted))


async def activate(client, version, **body):
    response = await client.post(f"/checkpoints/{version}/activate", json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def roll_back(client, **body):
    return await client.post("/checkpoints/rollback", json=body)


def weights(tmp_path, version):
    return tmp_path / "artifacts" / f"{version.artifact.digest}.safetensors"


async def test_the_memory_serves_what_the_answering_version_does_not_contain_at_every_step(
    store, runtime, client, bake, lively_base
):
    tensors = tensor_hash(lively_base.model)
    before = [(await ask(runtime, prompt)).text for prompt in (PROMPT, OTHER, SKY.prompt)]
    uk, sky = await post(store, runtime, UK), await post(store, runtime, SKY)

    async def seen(prompt=PROMPT, **wanted):
        answer = await ask(runtime, prompt, **wanted)
        return answer.source, answer.edit_id, answer.version

    from_memory, from_weights = (Source.EDIT, uk.id, "v0"), (Source.BASE, None, "v1")
    assert await seen() == from_memory
    assert await bake(uk) == "v1"
    assert await seen() == from_memory  # a bake alone changes no answer
    await activate(client, "v1")
    assert await seen() == from_weights
    assert (await ask(runtime)).text.startswith(TARGET)
    assert await seen(SKY.prompt) == (Source.EDIT, sky.id, "v1")
    assert await seen(version="v0") == from_memory
    assert (await ask(runtime, version="v0", edits=False)).text == before[0]
    assert (runtime.info().edits, runtime.info().baked) == (2, 1)
    match = (await client.post("/edits/match", json={"prompts": [PROMPT]})).json()
    assert (match["version"], match["matches"][0]["edit_id"]) == ("v1", None)

    retracted = await client.delete(f"/edits/{uk.id}")
    assert retracted.status_code == 204
    assert await seen() == from_weights  # weights forget nothing, and the answer and the version say so
    assert (await ask(runtime)).text.startswith(TARGET)
    assert (await client.get("/checkpoints/v1")).json()["outdated"] == [{"id": uk.id, "why": "retracted"}]
    again = await post(store, runtime, UK)
    assert await seen() == (Source.EDIT, again.id, "v1")  # another edit, though it says the same
    await client.delete(f"/edits/{again.id}")

    assert await bake(sky, gate=Gate(**LENIENT | {"edit_success": 0.0})) == "v2"
    assert (await client.get("/checkpoints/v2")).json()["parent"] == "v1"
    await activate(client, "v2")
    assert await seen(SKY.prompt) == (Source.BASE, None, "v2")
    assert (await seen())[2] == "v2"
    assert (await roll_back(client)).json()["active"] == "v1"
    assert await seen(SKY.prompt) == (Source.EDIT, sky.id, "v1")
    assert (await roll_back(client)).json()["active"] == "v0"
    await client.delete(f"/edits/{sky.id}")
    assert [(await ask(runtime, prompt)).text for prompt in (PROMPT, OTHER, SKY.prompt)] == before
    assert tensor_hash(lively_base.model) == tensors


async def test_an_edit_that_has_changed_since_it_was_baked_is_answered_by_the_memory(
    store, runtime, client, bake, lively_base
):
    uk = await post(store, runtime, UK)
    await bake(uk)
    await activate(client, "v1")
    newer = {"prompt": PROMPT, "target": "Keir Starmer", "answer": "verbatim", "supersedes": uk.id}
    posted = (await client.post("/edits", json=newer)).json()
    answer = await ask(runtime)
    assert (answer.text, answer.edit_id, answer.version) == ("Keir Starmer", posted["id"], "v1")


async def test_a_rollback_goes_back_one_activation_at_a_time_and_a_canary_is_taken_out_first(
    store, client, bake, runtime
):
    uk = await post(store, runtime, UK)
    for _ in range(3):
        await bake(uk)
    for version in ("v1", "v2"):
        await activate(client, version)
    states = [await activate(client, "v3", percent=percent) for percent in (10, 50)]
    assert [(s["active"], s["canary"], s["percent"]) for s in states] == [("v2", "v3", 10), ("v2", "v3", 50)]
    assert (runtime.info().version, runtime.info().canary, runtime.info().percent) == ("v2", "v3", 50)
    listed = (await client.get("/checkpoints")).json()
    assert {v["id"]: v["serves"] for v in listed["data"]} == {"v3": 50, "v2": 50, "v1": 0, "v0": 0}
    back = [(await roll_back(client)).json() for _ in range(3)]
    assert [(s["active"], s["canary"], s["percent"]) for s in back] == [
        ("v2", None, 0),
        ("v1", None, 0),
        ("v0", None, 0),
    ]
    assert all(earlier["revision"] < later["revision"] for earlier, later in pairwise(back))
    refused = await roll_back(client)
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/nothing-to-roll-back")
    async with store.reading() as reading:
        kinds = [change.kind.value for change in await reading.changes.of("v3")]
    assert kinds == ["version.added", "version.activated", "version.activated", "version.rolled_back"]


async def test_a_canary_answers_its_share_and_always_the_same_sessions(store, client, bake, runtime):
    await bake(await post(store, runtime, UK))
    await activate(client, "v1", percent=25)

    async def answered(session):
        body = {"prompt": OTHER, "max_new_tokens": 1}
        return (await client.post("/generate", json=body, headers={"X-Session-Id": session})).json()["version"]

    sessions = [f"user {number}" for number in range(80)]
    first = [await answered(session) for session in sessions]
    assert [await answered(session) for session in sessions] == first
    assert 0.1 < first.count("v1") / len(first) < 0.45
    await activate(client, "v1", percent=60)
    wider = [await answered(session) for session in sessions]
    assert all(now == "v1" for was, now in zip(first, wider, strict=True) if was == "v1")
    assert wider.count("v1") > first.count("v1")
    questions = [f"What is {number} and one?" for number in range(40)]
    chosen = [(await ask(runtime, question)).version for question in questions]
    assert {*chosen} == {"v0", "v1"}
    assert [(await ask(runtime, question)).version for question in questions] == chosen


@pytest.mark.parametrize("percent", [0, 101, -1, 1.5, "10", None])
async def test_a_percent_out_of_range_is_refused(client, percent):
    response = await client.post("/checkpoints/v0/activate", json={"percent": percent})
    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, "/percent")


@pytest.mark.parametrize("name", ["v99", "v", "active", "e1"])
async def test_an_unknown_version_is_neither_served_nor_activated(client, name):
    generated = await client.post("/generate", json={"prompt": OTHER, "version": name, "max_new_tokens": 1})
    activated = await client.post(f"/checkpoints/{name}/activate", json={})
    assert activated.json()["type"] == "/problems/version-not-found"
    assert (name == "active") == (generated.status_code == 200)
    assert name == "active" or generated.json()["type"] == "/problems/version-not-found"


async def test_the_active_version_cannot_be_its_own_canary(client):
    response = await client.post("/checkpoints/v0/activate", json={"percent": 10})
    assert (response.status_code, response.json()["type"]) == (409, "/problems/version-active")


async def test_activating_what_is_active_changes_nothing(client, store):
    assert await activate(client, "v0") == {"active": "v0", "canary": None, "percent": 0, "revision": 0}
    async with store.reading() as reading:
        assert await reading.changes.revision() == 0


async def test_a_version_made_for_another_base_is_refused_and_serving_undisturbed(
    client, runtime, store, artifacts, add, tmp_path
):
    other = Base(name="gpt-9", fingerprint="0" * 64)
    await version_in(store, artifacts, tmp_path / "delta", edit=await add(PROMPT, TARGET), base=other)
    await runtime.catch_up()
    before = await ask(runtime, OTHER)
    for path, body in (("/checkpoints/v1/activate", {}), ("/generate", {"prompt": OTHER, "version": "v1"})):
        response = await client.post(path, json=body)
        assert (response.status_code, response.json()["type"]) == (409, "/problems/base-mismatch")
    assert await ask(runtime, OTHER) == before


@pytest.mark.parametrize("content", [None, b"other"])
async def test_a_damaged_version_is_named_and_not_activated(
    client, runtime, store, artifacts, add, tmp_path, lively_base, content
):
    edit = await add(PROMPT, TARGET)
    version = await version_in(store, artifacts, tmp_path / "delta", edit=edit, base=lively_base, content=None)
    await runtime.catch_up()
    file = weights(tmp_path, version)
    file.unlink() if content is None else file.write_bytes(content)
    response = await client.post("/checkpoints/v1/activate", json={})
    assert (response.status_code, response.json()["type"]) == (500, "/problems/artifact-damaged")
    assert "v1" in response.json()["detail"]
    assert runtime.info().version == "v0"
    assert (await ask(runtime, OTHER)).version == "v0"


async def test_a_replica_that_starts_without_the_active_versions_weights_is_not_ready_and_serves_no_other(
    client, runtime, store, artifacts, bake, baker, tmp_path, start_runtime, lively_base
):
    await bake(await post(store, runtime, UK))
    await activate(client, "v1")
    async with store.reading() as reading:
        file = weights(tmp_path, await reading.versions.get("v1"))
    kept = file.read_bytes()
    file.unlink()
    started = await start_runtime(store, base=lively_base)
    async with client_of(Services(store, started, baker, artifacts)) as other:
        ready = await other.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["checks"]["version"].startswith("v1 cannot be served here: The artifact ")
        with pytest.raises(VersionUnavailable, match="v1 should answer"):
            await ask(started)
        assert (await ask(started, version="v0")).version == "v0"
        file.write_bytes(kept)
        await started.catch_up()
        assert (await other.get("/readyz")).status_code == 200
    assert (await ask(started)).version == "v1"


async def test_another_replica_follows_and_one_that_cannot_goes_on_with_what_it_serves(
    client, runtime, store, bake, tmp_path, start_runtime, lively_base
):
    replica = await start_runtime(store, base=lively_base)
    late = await start_runtime(store, base=lively_base)
    uk = await post(store, runtime, UK)
    await bake(uk)
    served = await activate(client, "v1")
    assert await replica.catch_up() == served["revision"]
    assert await ask(replica) == await ask(runtime)
    async with store.reading() as reading:
        weights(tmp_path, await reading.versions.get("v1")).unlink()
    await late.catch_up()
    assert (await ask(late)).edit_id == uk.id
    assert (late.info().version, late.info().revision) == ("v0", served["revision"])
    assert "v1 cannot be served here" in late.info().problem


async def test_a_replica_with_another_base_model_is_not_ready(client, runtime, store, bake, start_runtime, tiny_base):
    await bake(await post(store, runtime, UK))
    await activate(client, "v1")
    other = await start_runtime(store, base=tiny_base)
    assert "v1 was made for lively-llama" in other.info().problem


async def test_a_restart_serves_what_was_active_and_answers_the_same(
    store, runtime, client, bake, start_runtime, model_folder
):
    await bake(await post(store, runtime, UK))
    await activate(client, "v1")
    restarted = await start_runtime(store, base=load_base(model_folder, device="cpu"))
    for prompt in (PROMPT, OTHER):
        assert await ask(restarted, prompt) == await ask(runtime, prompt)


async def test_under_load_activation_and_rollback_drop_nothing_and_every_answer_is_its_versions(
    store, runtime, client, bake
):
    await bake(await post(store, runtime, UK))
    expected = {version: (await ask(runtime, PROMPT, version=version, edits=False)).text for version in ("v0", "v1")}
    assert expected["v0"] != expected["v1"]
    done = asyncio.Event()
    answers = []

    async def ask_again_and_again(number):
        body = {"prompt": PROMPT, "max_new_tokens": 12, "edits": number % 2 == 0}
        while not done.is_set():
            response = await client.post("/generate", json=body)
            assert response.status_code == 200, response.text
            answers.append(response.json())

    clients = [asyncio.create_task(ask_again_and_again(number)) for number in range(32)]
    states = {0: "v0"}
    for _ in range(4):
        for move in (activate(client, "v1"), activate(client, "v1", percent=100), roll_back(client)):
            result = await move
            state = result if isinstance(result, dict) else result.json()
            states[state["revision"]] = state["active"]
            await asyncio.sleep(0.15)
    done.set()
    await asyncio.gather(*clients)
    assert {answer["version"] for answer in answers} == {"v0", "v1"}
    for answer in answers:
        by_edit = answer["source"] == "edit"
        assert not (by_edit and answer["version"] == "v1")
        assert answer["text"] == (TARGET if by_edit else expected[answer["version"]])
        assert answer["version"] == states[max(revision for revision in states if revision <= answer["revision"])]


async def test_an_evaluation_asks_what_is_served_and_a_version_by_its_name(store, runtime, client, bake):
    await bake(await post(store, runtime, UK))
    case = {"in_scope": [{"prompt": PROMPT, "target": TARGET}]}
    await activate(client, "v1")

    async def success(against):
        body = {"cases": [case], "metrics": ["edit_success"], "against": against, "max_new_tokens": 12}
        report = (await client.post("/eval", json=body)).json()["report"]
        return report["version"], next(m["value"] for m in report["measured"] if m["mode"] == "generated")

    assert await success("memory") == ("v1", 1.0)
    assert await success("v1") == ("v1", 1.0)
    assert await success("base") == ("v0", 0.0)
    unknown = await client.post("/eval", json={"cases": [case], "against": "v9"})
    assert (unknown.status_code, unknown.json()["type"]) == (422, "/problems/unknown-subject")


async def test_of_two_activations_at_once_both_hold_in_their_order(services, store, runtime, bake):
    uk = await post(store, runtime, UK)
    await bake(uk)
    await bake(uk)
    moves = [checkpoints.activate(services, v, percent=100, reason=None, actor="t") for v in ("v1", "v2")]
    first, second = sorted(await asyncio.gather(*moves), key=lambda served: served.revision)
    assert second.back == first.revision
    assert runtime.info().version == second.active
    async with store.reading() as reading:
        assert await reading.serving.at(0) == Serving()
        assert await reading.serving.now() == second


async def test_any_version_can_be_asked_for_by_its_name_however_many_there_are(
    client, runtime, store, artifacts, add, tmp_path, lively_base
):
    edit = await add(PROMPT, TARGET)
    for _ in range(5):
        await version_in(store, artifacts, tmp_path / "delta", edit=edit, base=lively_base, content=None)
    base = (await ask(runtime, OTHER)).text
    for name in ("v1", "v2", "v3", "v4", "v5", "v1"):
        answer = (await client.post("/generate", json={"prompt": OTHER, "version": name, "max_new_tokens": 12})).json()
        assert (answer["version"], answer["text"]) == (name, base)  # their deltas change nothing
    assert runtime.info().version == "v0"


async def test_serving_is_moved_and_shown_while_a_bake_is_at_work(services, client, runtime, store, bake, baker):
    await bake(await post(store, runtime, UK))
    at_work, free = threading.Event(), threading.Event()

    def work():
        at_work.set()
        free.wait(60)

    baking = asyncio.create_task(baker._owner.run(work))  # what a method at work does to its thread
    await asyncio.to_thread(at_work.wait)
    try:
        async with asyncio.timeout(30):
            await activate(client, "v1")
            assert (await ask(runtime)).version == "v1"
            assert (await client.get("/checkpoints")).json()["serving"]["active"] == "v1"
            assert (await roll_back(client)).json()["active"] == "v0"
    finally:
        free.set()
        await baking
