"""Idempotency-Key: the same request many times is one change, whatever comes between."""

from __future__ import annotations

import asyncio

import pytest

from service.actions.services import Services
from service.domain.keys import Caller, KeyScope
from service.store.store import PostgresStore
from tests.bakes import BODY
from tests.databases import execute
from tests.fakes import ExactRuntime, client_of

pytestmark = pytest.mark.anyio

QA = {"prompt": "a", "target": "b"}
ONCE = {"Idempotency-Key": "f3b1"}
EVALUATION = {"cases": [{"in_scope": [{"prompt": "a", "target": "b"}]}], "against": "base"}


async def count(client, path="/edits"):
    return len((await client.get(path)).json()["data"])


def sent(response):
    """What a caller sees of an answer, but for what is every request's own."""
    names = ("Location", "ETag", "Content-Type")
    return response.status_code, response.content, [response.headers.get(name) for name in names]


async def test_the_same_post_five_times_makes_one_edit_and_answers_the_same(client):
    first, *others = [await client.post("/edits", json=QA, headers=ONCE) for _ in range(5)]
    assert first.status_code == 201
    assert "Idempotency-Replayed" not in first.headers
    assert {other.headers["Idempotency-Replayed"] for other in others} == {"true"}
    assert [sent(other) for other in others] == [sent(first)] * 4
    assert await count(client) == 1


async def test_the_same_post_five_times_at_once_makes_one_edit(client):
    answers = await asyncio.gather(*(client.post("/edits", json=QA, headers=ONCE) for _ in range(5)))
    assert {sent(answer) == sent(answers[0]) for answer in answers} == {True}
    assert [answer.headers.get("Idempotency-Replayed") for answer in answers].count(None) == 1
    assert await count(client) == 1


async def test_a_repeat_is_answered_as_the_first_time_though_the_edit_has_changed_since(client):
    first = await client.post("/edits", json=QA, headers=ONCE)
    await client.delete("/edits/e1")
    assert sent(await client.post("/edits", json=QA, headers=ONCE)) == sent(first)
    assert await count(client) == 0


async def test_another_replica_repeats_the_answer_and_has_what_came_of_it(client, database_url):
    first = await client.post("/edits", json=QA, headers=ONCE)
    async with (
        PostgresStore(database_url) as store,
        client_of(Services(store, ExactRuntime(store), None, None)) as other,
    ):
        assert sent(await other.post("/edits", json=QA, headers=ONCE)) == sent(first)
        assert (await other.post("/generate", json={"prompt": "a"})).json()["edit_id"] == "e1"


async def test_the_same_key_with_another_body_is_refused(client):
    await client.post("/edits", json=QA, headers=ONCE)
    refused = await client.post("/edits", json=QA | {"target": "c"}, headers=ONCE)
    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/idempotency-key-reused")
    assert "'f3b1'" in refused.json()["detail"]
    assert await count(client) == 1


async def test_different_bodies_with_one_key_at_once_make_one_edit(client):
    bodies = [QA | {"prompt": str(number)} for number in range(5)]
    answers = await asyncio.gather(*(client.post("/edits", json=body, headers=ONCE) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [201, 422, 422, 422, 422]
    assert await count(client) == 1


async def test_a_refused_request_leaves_its_key_free(client, post):
    await post(**QA)
    assert (await client.post("/edits", json=QA, headers=ONCE)).status_code == 409
    await client.delete("/edits/e1")
    assert (await client.post("/edits", json=QA, headers=ONCE)).status_code == 201


async def test_a_key_belongs_to_its_endpoint_and_its_caller(services, client):
    class TwoCallers:
        required = True

        def caller(self, token):
            return Caller(actor=token, scopes=frozenset({KeyScope.ADMIN}))

    await client.post("/edits", json=QA, headers=ONCE)
    assert (await client.post("/eval", json=EVALUATION, headers=ONCE)).status_code == 200
    signed = Services(services.store, services.runtime, services.baker, services.artifacts, TwoCallers())
    async with client_of(signed) as both:
        answers = [
            await both.post(
                "/edits", json={"prompt": name, "target": "b"}, headers=ONCE | {"Authorization": f"Bearer {name}"}
            )
            for name in ("alice", "bob")
        ]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert await count(client) == 3


async def test_an_evaluation_that_is_answered_at_once_is_kept_once(client):
    first, second = [await client.post("/eval", json=EVALUATION, headers=ONCE) for _ in range(2)]
    assert (first.status_code, sent(second)) == (200, sent(first))
    assert await count(client, "/eval") == 1


async def test_an_evaluation_that_is_queued_is_queued_once(client, database_url):
    cases = [{"in_scope": [{"prompt": str(number), "target": "b"}]} for number in range(65)]
    body = {"cases": cases, "against": "base"}
    answers = await asyncio.gather(*(client.post("/eval", json=body, headers=ONCE) for _ in range(3)))
    assert [sent(answer) for answer in answers] == [sent(answers[0])] * 3
    assert (answers[0].status_code, answers[0].headers["Location"]) == (202, "/eval/ev1")
    assert execute(database_url, "SELECT count(*) FROM procrastinate_jobs") == [(1,)]


async def test_a_bake_is_queued_once(client, post, database_url):
    await post(**QA)
    answers = await asyncio.gather(*(client.post("/bakes", json=BODY, headers=ONCE) for _ in range(3)))
    assert [sent(answer) for answer in answers] == [sent(answers[0])] * 3
    assert (answers[0].status_code, answers[0].headers["Location"]) == (202, "/bakes/b1")
    assert execute(database_url, "SELECT count(*) FROM procrastinate_jobs") == [(1,)]


async def test_after_a_day_a_key_is_new_again(client, services, database_url):
    await client.post("/edits", json=QA, headers=ONCE)
    execute(database_url, "UPDATE receipts SET at = at - interval '24 hours'")
    assert (await client.post("/edits", json=QA | {"prompt": "c"}, headers=ONCE)).status_code == 201
    assert await count(client) == 2


async def test_old_receipts_are_forgotten_and_others_kept(client, services, database_url):
    await client.post("/edits", json=QA, headers={"Idempotency-Key": "old"})
    execute(database_url, "UPDATE receipts SET at = at - interval '24 hours'")
    await client.post("/edits", json=QA | {"prompt": "c"}, headers={"Idempotency-Key": "new"})
    async with services.store.recording() as recording:
        await recording.receipts.forget_old()
    assert execute(database_url, "SELECT key FROM receipts") == [("new",)]


class Power(BaseException):
    """The plug is pulled."""


class DyingRuntime(ExactRuntime):
    async def catch_up(self):
        raise Power


async def test_a_service_that_dies_between_the_commit_and_the_answer_answers_the_repeat(services, client):
    dying = Services(services.store, DyingRuntime(services.store), None, None)
    async with client_of(dying) as unlucky:
        with pytest.raises(Power):
            await unlucky.post("/edits", json=QA, headers=ONCE)
    repeated = await client.post("/edits", json=QA, headers=ONCE)
    assert (repeated.status_code, repeated.headers["Location"]) == (201, "/edits/e1")
    assert repeated.headers["Idempotency-Replayed"] == "true"
    assert await count(client) == 1


async def test_a_service_that_dies_before_the_commit_leaves_the_key_free(services, client, monkeypatch):
    from service.store import store as module

    async def die(*_):
        raise Power

    with monkeypatch.context() as patch:
        patch.setattr(module, "keep", die)
        with pytest.raises(Power):
            await client.post("/edits", json=QA, headers=ONCE)
    assert await count(client) == 0
    assert (await client.post("/edits", json=QA, headers=ONCE)).status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 256, "é".encode(), b"\x07"])
async def test_a_key_that_is_none_is_refused(client, key):
    refused = await client.post("/edits", json=QA, headers=[("Idempotency-Key", key)])
    assert refused.status_code == 422
    assert "Idempotency-Key" in refused.json()["detail"]


async def test_a_dry_run_writes_nothing_so_its_key_stays_free(client, post):
    await post(**QA)
    dry = await client.post("/bakes", json=BODY | {"dry_run": True}, headers=ONCE)
    assert dry.status_code == 200
    assert (await client.post("/bakes", json=BODY, headers=ONCE)).status_code == 202


async def test_a_file_imported_five_times_is_imported_once(client):
    line = {"content": b'{"prompt": "a", "target": "b"}\n', "headers": ONCE | {"Content-Type": "application/x-ndjson"}}
    first, *others = [await client.post("/edits/import", **line) for _ in range(5)]
    assert first.status_code == 201
    assert [sent(other) for other in others] == [sent(first)] * 4
    assert await count(client) == 1


WRITES_NOTHING = {"/generate", "/v1/completions", "/v1/chat/completions", "/edits/match", "/edits/preview"}


async def test_every_post_that_writes_takes_a_key_for_repeats(client):
    paths = (await client.get("/openapi.json")).json()["paths"]
    posts = {path: methods["post"].get("parameters", []) for path, methods in paths.items() if "post" in methods}
    takes = {path for path, given in posts.items() if any(one["name"] == "Idempotency-Key" for one in given)}
    assert takes == posts.keys() - WRITES_NOTHING
