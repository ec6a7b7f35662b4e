"""The door of bakes: what can be baked is queued, what cannot is refused at once, and whoever follows sees it move."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import pytest

from service.actions import bakes as actions
from service.actions import work as actions_work
from service.store.jobs import work
from service.wiring import jobs
from tests.bakes import BODY, CONFIG, LENIENT, PROMPT, STRICT, TARGET

pytestmark = pytest.mark.anyio

EDIT = {"prompt": PROMPT, "target": TARGET}


@pytest.fixture
async def working(services, database_url, monkeypatch):
    """The worker that runs inside the service."""
    monkeypatch.setattr(actions_work, "SECONDS_BETWEEN_NOTES", 0.0)
    task = asyncio.create_task(work(database_url, jobs(services)))
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.fixture
def submit(client):
    async def submit(**body):
        response = await client.post("/bakes", json=BODY | body)
        assert response.status_code == 202, response.text
        return response.json()

    return submit


async def ended(client, bake_id):
    async with asyncio.timeout(60):
        while (bake := (await client.get(f"/bakes/{bake_id}")).json())["finished_at"] is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return bake


async def test_a_bake_is_queued_and_done_by_the_worker(client, post, working):
    await post(**EDIT)
    response = await client.post("/bakes", json=BODY)
    queued = response.json()
    assert (response.status_code, response.headers["Location"]) == (202, "/bakes/b1")
    assert (queued["id"], queued["state"], queued["stage"], queued["percent"]) == ("b1", "queued", None, 0)
    assert (queued["report"], queued["version"], queued["actor"], queued["parent"]) == (None, None, "anonymous", "v0")
    assert queued["edits"] == [{"id": "e1", "revision": 1}]
    done = await ended(client, "b1")
    assert (done["state"], done["version"], done["error"]) == ("done", "v1", None)
    report = done["report"]
    assert report["refusal"] is None
    assert [finding["measure"] for finding in report["findings"]] == ["edit_success", "drawdown", "relative_norm"]
    assert all(finding["met"] for finding in report["findings"])
    assert {"edit_success", "drawdown"} <= {one["metric"] for one in report["measured"]}
    assert set(report["seconds"]) == {"preparing", "measuring"}


async def test_what_does_not_keep_to_its_gate_is_refused_with_its_report(client, post, submit, working):
    await post(**EDIT)
    refused = await ended(client, (await submit(**STRICT))["id"])
    assert (refused["state"], refused["version"], refused["error"]) == ("refused", None, None)
    unmet = [finding["measure"] for finding in refused["report"]["findings"] if not finding["met"]]
    assert unmet == ["drawdown", "relative_norm"]
    assert "drawdown is" in refused["report"]["refusal"]
    assert (await client.get("/checkpoints")).json()["data"][0]["id"] == "v0"


async def test_a_bake_that_fails_says_why(client, post, submit, working):
    await post(**EDIT)
    failed = await ended(client, (await submit(method="mend", config={}))["id"])
    assert (failed["state"], failed["report"]) == ("failed", None)
    assert failed["error"].startswith("There is no trained MEND editor of lively-llama.")
    assert "errata train mend" in failed["error"]


async def test_the_request_is_given_back_with_every_setting(post, submit):
    await post(**EDIT)
    kept = (await submit(edits=["e1"], seed=7))["request"]
    assert kept["config"].items() >= CONFIG.items()
    assert kept["config"]["stop_loss"] == 0.03
    assert kept | {"config": None} == {
        "method": "fine_tuning", "edits": ["e1"], "config": None, "gate": LENIENT, "seed": 7
    }  # fmt: skip


async def test_a_dry_run_says_what_would_be_done_and_does_nothing(client, post):
    await post(**EDIT)
    await post(kind="sentiment", topic="tea", sentiment="positive")
    response = await client.post("/bakes", json=BODY | {"dry_run": True})
    plan = response.json()
    assert response.status_code == 200
    assert "Location" not in response.headers
    assert [edit["id"] for edit in plan["edits"]] == ["e1"]
    assert [one["id"] for one in plan["left_out"]] == ["e2"]
    assert (plan["advised"], plan["base"]["name"], plan["seconds"]) == ("rome", "lively-llama", None)
    assert {fit["method"]: fit["most_edits"] for fit in plan["fits"]} == {"rome": 10, "mend": 25, "fine_tuning": None}
    assert plan["passes"] >= CONFIG["steps"]
    assert plan["probes"] == 6
    assert (await client.get("/bakes")).json()["data"] == []


async def test_whoever_follows_a_bake_sees_it_move_to_its_end(client, post, submit, working):
    await post(**EDIT)
    queued = await submit()
    response = await client.get(f"/bakes/{queued['id']}/events")
    assert response.headers["Content-Type"].startswith("text/event-stream")
    *moves, end = events(response.text)
    assert {name for name, _ in moves} <= {"progress"}
    assert [set(data) for _, data in moves] == [{"id", "state", "stage", "percent"}] * len(moves)
    assert end == ("end", (await client.get("/bakes/b1")).json())


async def test_following_a_bake_that_has_ended_ends_at_once(client, post, submit):
    await post(**EDIT)
    await submit()
    await client.delete("/bakes/b1")
    ((name, bake),) = events((await client.get("/bakes/b1/events")).text)
    assert (name, bake["state"]) == ("end", "cancelled")


async def test_a_stream_ends_when_the_service_is_stopping(services, post, submit):
    await post(**EDIT)
    await submit()
    stopping, seen = asyncio.Event(), []
    async for bake in actions.follow(services, "b1", stopping=stopping):
        seen.append(bake.state)
        stopping.set()
    assert seen == ["queued"]


async def test_what_is_cancelled_stays_cancelled(client, post, submit):
    await post(**EDIT)
    queued = await submit()
    cancelled = await client.delete("/bakes/b1")
    assert cancelled.status_code == 200
    assert cancelled.json() == queued | {"state": "cancelled", "finished_at": cancelled.json()["finished_at"]}
    again = await client.delete("/bakes/b1")
    assert (again.status_code, again.json()["type"]) == (409, "/problems/bake-ended")
    assert again.json()["detail"] == "b1 has ended: it is cancelled."
    assert (await client.get("/bakes/b1")).json() == cancelled.json()


@pytest.mark.parametrize("name", ["b99", "e1", "nothing", "b%00"])
async def test_an_unknown_bake_is_not_found(client, name):
    for method, path in (("GET", f"/bakes/{name}"), ("DELETE", f"/bakes/{name}"), ("GET", f"/bakes/{name}/events")):
        response = await client.request(method, path)
        assert (response.status_code, response.json()["type"]) == (404, "/problems/bake-not-found")


async def test_the_list_comes_in_pages_newest_first(client, post, submit):
    await post(**EDIT)
    kept = [await submit() for _ in range(3)]
    first = (await client.get("/bakes?limit=2")).json()
    second = (await client.get(f"/bakes?limit=2&after={first['next']}")).json()
    assert [[bake["id"] for bake in page["data"]] for page in (first, second)] == [["b3", "b2"], ["b1"]]
    assert (first["has_more"], second["has_more"], second["next"]) == (True, False, None)
    assert first["data"][0] == kept[2]


@pytest.mark.parametrize(
    ("body", "pointer", "words"),
    [
        ({"method": None}, "/method", "string"),
        ({"method": " "}, "/method", "blank"),
        ({"edits": "all"}, "/edits", '"active"'),
        ({"edits": []}, "/edits", "at least 1"),
        ({"edits": ["e1", "17"]}, "/edits/1", "match"),
        ({"edits": ["e1", "e1"]}, "/edits", "e1 twice"),
        ({"config": []}, "/config", "dictionary"),
        ({"config": {"colour": 1}}, "/config/colour", "not known"),
        ({"config": {"steps": "many"}}, "/config/steps", "integer"),
        ({"config": {"steps": 0}}, "/config", "positive"),
        ({"config": {"layer": 9}}, "/config/layer", "layers 0 to 1"),
        ({"gate": {"edit_success": 1.5}}, "/gate/edit_success", "1"),
        ({"gate": {"drawdown": -0.1}}, "/gate/drawdown", "0"),
        ({"gate": {"relative_norm": 0}}, "/gate/relative_norm", "0"),
        ({"gate": {"max_new_tokens": 0}}, "/gate/max_new_tokens", "1"),
        ({"gate": {"beauty": 1}}, "/gate/beauty", "not known"),
        ({"seed": -1}, "/seed", "0"),
        ({"dry_run": "yes"}, "/dry_run", "boolean"),
        ({"colour": "red"}, "/colour", "not known"),
    ],
)
async def test_a_request_that_is_not_valid_is_refused_and_the_field_named(client, post, body, pointer, words):
    await post(**EDIT)
    response = await client.post("/bakes", json=BODY | body)
    problem = response.json()
    assert (response.status_code, problem["type"]) == (422, "/problems/invalid-request")
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert words in problem["errors"][0]["detail"]
    assert (await client.get("/bakes")).json()["data"] == []


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(
    ("edits", "body", "status", "slug", "words"),
    [
        ([EDIT], {"method": "nonsense"}, 422, "unknown-method", "nonsense"),
        ([EDIT], {"edits": ["e99"]}, 404, "edit-not-found", "e99"),
        ([], {}, 422, "nothing-to-bake", "No edit is in force"),
        ([{"kind": "sentiment", "topic": "tea", "sentiment": "positive"}], {}, 422, "nothing-to-bake", "can be baked"),
        ([{"kind": "statement", "statement": "It rains."}], {"edits": ["e1"]}, 422, "not-bakeable", "e1"),
        ([EDIT | {"expires_at": "2126-01-31T12:00:00Z"}], {"edits": ["e1"]}, 422, "not-bakeable", "expires"),
        (
            [EDIT, {"prompt": "UK PM?", "target": "Ann", "scope": {"in_scope": [PROMPT]}}],
            {},
            422,
            "edits-contradict",
            "e1 answers",
        ),
        ([EDIT], {"gate": {"max_new_tokens": 1}}, 422, "gate-unmeetable", "e1"),
        ([EDIT], {"gate": {"max_new_tokens": 256}}, 422, "prompt-too-long", "e1"),
    ],
)
async def test_what_cannot_be_baked_is_refused_before_anything_is_queued(
    client, post, edits, body, status, slug, words, dry_run
):
    for edit in edits:
        await post(**edit)
    response = await client.post("/bakes", json=BODY | body | {"dry_run": dry_run})
    problem = response.json()
    assert (response.status_code, problem["type"]) == (status, f"/problems/{slug}")
    assert words in problem["detail"]
    assert problem["hint"]
    assert (await client.get("/bakes")).json()["data"] == []


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "after=17", "after=e1", "colour=red"])
async def test_a_list_that_cannot_be_is_refused(client, query):
    for path in ("/bakes", "/checkpoints"):
        response = await client.get(f"{path}?{query}")
        assert (response.status_code, response.json()["type"]) == (422, "/problems/invalid-request")


@pytest.mark.parametrize("path", ["/bakes", "/bakes/b1", "/bakes/b1/events"])
async def test_without_the_database_nothing_is_said_but_that(lost, path):
    response = await lost.get(path)
    assert (response.status_code, response.json()["type"]) == (503, "/problems/store-unavailable")


def events(text):
    """(name, data) of each event."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found
