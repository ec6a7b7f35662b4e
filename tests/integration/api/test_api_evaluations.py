"""The door of evaluations: small ones are answered, large ones are queued, and whatever is wrong is said at once."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import pytest

from service.actions import evaluations as actions
from service.domain.evaluations import EvaluationState
from service.store.jobs import work
from service.wiring import jobs

pytestmark = pytest.mark.anyio

QUESTION = "Who is the prime minister of the UK?"
EDIT = {"prompt": QUESTION, "target": "Boris Johnson"}
CASE = {"edit": EDIT, "in_scope": [EDIT], "out_of_scope": [{"prompt": "Who is the king of the UK?"}]}
LARGE = {"cases": [{"in_scope": [EDIT]} for _ in range(65)], "against": "base"}


@pytest.fixture
async def working(services, database_url):
    """The worker that runs inside the service."""
    task = asyncio.create_task(work(database_url, jobs(services)))
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.fixture
def submit(client):
    async def submit(**body):
        response = await client.post("/eval", json=body)
        assert response.is_success, response.text
        return response.json()

    return submit


def figures(evaluation, metric):
    """Value by mode, over all forms."""
    measured = evaluation["report"]["measured"]
    return {m["mode"]: m["value"] for m in measured if m["metric"] == metric and m["form"] is None}


async def test_a_small_evaluation_is_answered_at_once_and_kept(client, submit):
    response = await client.post("/eval", json={"cases": [CASE], "against": "serac"})
    evaluation = response.json()
    assert response.status_code == 200
    assert "Location" not in response.headers
    assert (evaluation["id"], evaluation["state"], evaluation["done"], evaluation["total"]) == ("ev1", "done", 2, 2)
    assert figures(evaluation, "edit_success") == {"generated": 1.0, "teacher_forced": 1.0}
    assert figures(evaluation, "drawdown") == {"generated": 0.0, "teacher_forced": 0.0}
    assert (evaluation["actor"], evaluation["error"]) == ("anonymous", None)
    assert (await client.get("/eval/ev1")).json() == evaluation


async def test_a_request_is_given_back_in_full(submit):
    kept = (await submit(cases=[CASE], against="serac", edits_at_once=[1, 2], seed=7, max_new_tokens=5))["request"]
    probe = {"prompt": QUESTION, "target": "Boris Johnson", "form": None}
    scope = {"in_scope": [], "out_of_scope": [], "threshold": None}
    edit = {"kind": "qa", "subject": None, "scope": scope, "answer": "counterfactual"} | EDIT
    out = {"prompt": "Who is the king of the UK?", "target": None, "form": None}
    case = {"id": "case 1", "edit": edit, "in_scope": [probe], "out_of_scope": [out], "previous": None, "replies": None}
    assert kept == {
        "cases": [case],
        "suite": None,
        "edits": [],
        "against": "serac",
        "edits_at_once": [1, 2],
        "metrics": [],
        "limit": None,
        "seed": 7,
        "max_new_tokens": 5,
    }


@pytest.mark.parametrize(
    ("edit", "prompt", "target"),
    [
        ({"kind": "fact", "claim": "Tea is a drink.", "label": False}, "Tea is a drink.", "False"),
        ({"kind": "statement", "statement": "The UK left the EU."}, "The UK left the EU.", ""),
        ({"kind": "sentiment", "topic": "tea", "sentiment": "positive"}, "tea", "positive"),
    ],
)
async def test_the_edit_of_a_case_may_be_of_any_kind(submit, edit, prompt, target):
    evaluation = await submit(cases=[CASE | {"edit": edit}], against="serac")
    kept = evaluation["request"]["cases"][0]["edit"]
    assert (kept["kind"], kept["prompt"], kept["target"]) == (edit["kind"], prompt, target)


async def test_the_edits_in_force_are_measured_and_left_as_they_are(client, submit, post):
    edit = await post(**EDIT, scope={"in_scope": ["UK PM?"], "out_of_scope": ["Who is the king of the UK?"]})
    before = await submit(edits="active")
    named = await submit(edits=[edit["id"]])
    base = await submit(edits="active", against="base")
    assert [figures(e, "edit_success")["generated"] for e in (before, named, base)] == [1.0, 1.0, 0.0]
    assert [e["request"]["edits"] for e in (before, named, base)] == [["active"], ["e1"], ["active"]]
    (first, *_) = base["report"]["failures"]
    assert (first["in_scope"], first["expected"]) == (True, "Boris Johnson")
    assert (await client.get("/info")).json()["revision"] == edit["revision"] == before["report"]["revision"]


async def test_a_large_evaluation_is_queued_and_done_by_the_worker(client, working):
    response = await client.post("/eval", json=LARGE)
    queued = response.json()
    assert (response.status_code, response.headers["Location"]) == (202, "/eval/ev1")
    assert (queued["state"], queued["done"], queued["total"], queued["report"]) == ("queued", 0, 65, None)
    async with asyncio.timeout(60):
        while (evaluation := (await client.get("/eval/ev1")).json())["state"] in {"queued", "running"}:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (evaluation["state"], evaluation["done"], evaluation["report"]["probes"]) == ("done", 65, 65)
    assert figures(evaluation, "edit_success") == {"generated": 0.0, "teacher_forced": 0.0}


async def test_sixty_four_probes_are_few_and_one_more_is_many(client):
    few = {**LARGE, "cases": LARGE["cases"][:64]}
    assert [(await client.post("/eval", json=body)).status_code for body in (few, LARGE)] == [200, 202]


async def test_an_evaluation_that_fails_says_why(client, working, services):
    case = {"in_scope": [EDIT], "edit": {"prompt": "word " * 100, "target": "x"}}
    body = {"cases": [{**case, "id": str(n)} for n in range(65)], "against": "serac"}
    assert (await client.post("/eval", json=body)).status_code == 202
    async with asyncio.timeout(60):
        while not (evaluation := await actions.read(services, "ev1")).state.ended:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert evaluation.state is EvaluationState.FAILED
    failed = (await client.get("/eval/ev1")).json()
    assert failed["error"].startswith("The edit takes 101 tokens of 64. ")
    assert failed["report"] is None


async def test_what_is_cancelled_stays_cancelled(client, submit):
    queued = await submit(**LARGE)
    cancelled = await client.delete("/eval/ev1")
    assert cancelled.status_code == 200
    assert cancelled.json() == queued | {"state": "cancelled", "finished_at": cancelled.json()["finished_at"]}
    again = await client.delete("/eval/ev1")
    assert (again.status_code, again.json()["type"]) == (409, "/problems/evaluation-ended")
    assert "cancelled" in again.json()["detail"]
    assert (await client.get("/eval/ev1")).json() == cancelled.json()


async def test_what_is_done_cannot_be_cancelled(client, submit):
    done = await submit(cases=[CASE])
    refused = await client.delete(f"/eval/{done['id']}")
    assert (refused.status_code, refused.json()["detail"]) == (409, "ev1 has ended: it is done.")
    assert (await client.get("/eval/ev1")).json() == done


@pytest.mark.parametrize("name", ["ev99", "e1", "nothing", "ev%00"])
async def test_an_unknown_evaluation_is_not_found(client, name):
    for method, path in (("GET", f"/eval/{name}"), ("DELETE", f"/eval/{name}"), ("GET", f"/eval/{name}/report")):
        response = await client.request(method, path)
        assert (response.status_code, response.json()["type"]) == (404, "/problems/evaluation-not-found")


async def test_the_list_comes_in_pages_newest_first_without_what_may_be_long(client, submit):
    kept = [await submit(cases=[CASE], against="base") for _ in range(3)]
    first = (await client.get("/eval?limit=2")).json()
    second = (await client.get(f"/eval?limit=2&after={first['next']}")).json()
    assert [[e["id"] for e in page["data"]] for page in (first, second)] == [["ev3", "ev2"], ["ev1"]]
    assert (first["has_more"], second["has_more"], second["next"]) == (True, False, None)
    for part, long in (("request", {"cases"}), ("report", {"failures", "in_scope_betas", "out_of_scope_betas"})):
        whole, short = kept[2][part], first["data"][0][part]
        assert short == {name: value for name, value in whole.items() if name not in long}
        assert long <= set(whole)


async def test_a_report_is_a_page_of_its_own_also_before_it_is_done(client, submit):
    await submit(cases=[CASE], against="base")
    await submit(**LARGE)
    for name, state in (("ev1", "done"), ("ev2", "queued")):
        page = await client.get(f"/eval/{name}/report")
        assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert state in page.text
        assert name in page.text


@pytest.mark.parametrize(
    ("body", "pointer", "words"),
    [
        ({}, "", "exactly one of `cases`, `suite` and `edits`"),
        ({"cases": [CASE], "suite": "drift"}, "", "exactly one"),
        ({"suite": "drift", "edits": "active"}, "", "exactly one"),
        ({"cases": []}, "/cases", "at least 1"),
        ({"cases": [{"in_scope": [{"prompt": "a"}]}]}, "/cases/0/in_scope/0/target", "required"),
        ({"cases": [CASE, {"id": "x"}]}, "/cases/1", "must hold a probe"),
        ({"cases": [{"in_scope": [], "out_of_scope": []}]}, "/cases/0", "must hold a probe"),
        ({"cases": [CASE | {"colour": 1}]}, "/cases/0/colour", "not known"),
        ({"cases": [CASE | {"in_scope": [EDIT | {"x": 1}]}]}, "/cases/0/in_scope/0/x", "not known"),
        ({"cases": [CASE | {"in_scope": [EDIT | {"prompt": " "}]}]}, "/cases/0/in_scope/0/prompt", "blank"),
        ({"cases": [CASE | {"in_scope": [EDIT] * 257}]}, "/cases/0/in_scope", "256"),
        ({"cases": [CASE | {"out_of_scope": [EDIT] * 257}]}, "/cases/0/out_of_scope", "256"),
        ({"cases": [CASE | {"id": "x" * 65}]}, "/cases/0/id", "64"),
        ({"cases": [CASE | {"previous": "\0"}]}, "/cases/0/previous", "NUL"),
        ({"cases": [CASE | {"edit": {"prompt": "a"}}]}, "/cases/0/edit/target", "required"),
        ({"cases": [CASE | {"edit": {"kind": "rumour"}}]}, "/cases/0/edit/kind", "qa, fact, statement, sentiment"),
        ({"cases": [CASE | {"edit": EDIT | {"tags": ["a"]}}]}, "/cases/0/edit/tags", "not known"),
        ({"cases": [CASE | {"edit": EDIT | {"scope": {"threshold": 2}}}]}, "/cases/0/edit/scope/threshold", "1"),
        ({"cases": [CASE | {"id": "x"}, CASE, CASE | {"id": "x"}]}, "/cases", "two cases of the name x"),
        ({"cases": [CASE | {"id": "case 2"}, CASE]}, "/cases", "two cases of the name case 2"),
        ({"cases": [{"in_scope": [EDIT]}] * 10_001}, "/cases", "10000"),
        ({"suite": ""}, "/suite", "blank"),
        ({"edits": []}, "/edits", "at least 1"),
        ({"edits": "all"}, "/edits", '"active"'),
        ({"edits": 5}, "/edits", "list"),
        ({"edits": ["active", "e1"]}, "/edits/0", "match"),
        ({"edits": ["e1", "17"]}, "/edits/1", "match"),
        ({"edits": ["e1", "e2", "e1"]}, "/edits", "e1 twice"),
        ({"suite": "drift", "against": " "}, "/against", "blank"),
        ({"suite": "drift", "against": "serac", "edits_at_once": 0}, "/edits_at_once/0", "1"),
        ({"suite": "drift", "against": "serac", "edits_at_once": 10_001}, "/edits_at_once/0", "10000"),
        ({"suite": "drift", "against": "serac", "edits_at_once": []}, "/edits_at_once", "at least 1"),
        ({"suite": "drift", "against": "serac", "edits_at_once": [*range(1, 18)]}, "/edits_at_once", "16"),
        ({"suite": "drift", "against": "serac", "edits_at_once": [5, 5]}, "/edits_at_once", "5 twice"),
        ({"suite": "drift", "against": "serac", "edits_at_once": "5"}, "/edits_at_once", "list"),
        ({"suite": "drift", "edits_at_once": 5}, "/edits_at_once", "memory"),
        ({"suite": "drift", "metrics": ["drawdown", "drawdown"]}, "/metrics", "drawdown twice"),
        ({"suite": "drift", "metrics": [str(n) for n in range(65)]}, "/metrics", "64"),
        ({"suite": "drift", "limit": 0}, "/limit", "1"),
        ({"suite": "drift", "limit": "5"}, "/limit", "integer"),
        ({"edits": "active", "limit": 5}, "/limit", "`suite`"),
        ({"suite": "drift", "seed": -1}, "/seed", "0"),
        ({"suite": "drift", "max_new_tokens": 1025}, "/max_new_tokens", "1024"),
        ({"suite": "drift", "colour": "red"}, "/colour", "not known"),
    ],
)
async def test_a_request_that_is_not_valid_is_refused_and_the_field_named(client, body, pointer, words):
    content = json.dumps(body)
    response = await client.post("/eval", content=content, headers={"Content-Type": "application/json"})
    problem = response.json()
    assert (response.status_code, problem["type"]) == (422, "/problems/invalid-request")
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert words in problem["errors"][0]["detail"]
    assert (await client.get("/eval")).json()["data"] == []


@pytest.mark.parametrize(
    ("body", "status", "slug", "words"),
    [
        ({"suite": "nonsense"}, 422, "unknown-suite", "nonsense"),
        ({"cases": [CASE], "against": "rome"}, 422, "unknown-subject", "rome"),
        ({"cases": [CASE], "metrics": ["beauty"]}, 422, "unknown-metric", "beauty"),
        ({"cases": [{"in_scope": [EDIT]}], "metrics": ["drawdown"]}, 422, "metric-unavailable", "drawdown"),
        ({"edits": "active"}, 422, "nothing-to-evaluate", "edit"),
        ({"edits": ["e99"]}, 404, "edit-not-found", "e99"),
    ],
)
async def test_what_cannot_be_measured_is_refused_before_anything_is_queued(client, body, status, slug, words):
    response = await client.post("/eval", json=body)
    problem = response.json()
    assert (response.status_code, problem["type"]) == (status, f"/problems/{slug}")
    assert words in problem["detail"]
    assert problem["hint"]
    assert (await client.get("/eval")).json()["data"] == []


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "after=17", "after=e1", "colour=red"])
async def test_a_list_that_cannot_be_is_refused_and_the_parameter_named(client, query):
    response = await client.get(f"/eval?{query}")
    assert (response.status_code, response.json()["type"]) == (422, "/problems/invalid-request")
    assert f"The query parameter `{query.partition('=')[0]}`" in response.json()["detail"]


async def test_without_the_database_evaluations_are_unavailable_for_a_while(lost):
    for method, path in (("POST", "/eval"), ("GET", "/eval"), ("GET", "/eval/ev1"), ("DELETE", "/eval/ev1")):
        response = await lost.request(method, path, json={"cases": [CASE]} if method == "POST" else None)
        assert (response.status_code, response.json()["type"]) == (503, "/problems/store-unavailable"), path
        assert int(response.headers["Retry-After"]) > 0
