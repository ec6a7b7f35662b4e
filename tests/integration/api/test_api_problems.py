import json
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from service.actions.services import Services
from tests.fakes import ExactRuntime, LostStore, client_of

pytestmark = pytest.mark.anyio

QA = {"prompt": "a", "target": "b"}
FACT = {"kind": "fact", "claim": "a", "label": True}


def assert_problem(response, status, slug):
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json()
    assert (response.status_code, problem["status"]) == (status, status)
    assert problem["type"] == f"/problems/{slug}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["hint"]
    assert problem["request_id"] == response.headers["X-Request-Id"]
    return problem


@pytest.mark.parametrize(
    ("body", "pointer", "words"),
    [
        ({}, "/prompt", "required"),
        ({"prompt": "a"}, "/target", "required"),
        ([], "", "object"),
        ("text", "", "object"),
        (QA | {"traget": "x"}, "/traget", "not known"),
        (QA | {"a/b~c": 1}, "/a~1b~0c", "not known"),
        (QA | {"\ud800": 1}, "", "Unicode"),
        (QA | {"prompt": 5}, "/prompt", "string"),
        (QA | {"prompt": ""}, "/prompt", "blank"),
        (QA | {"prompt": " \n"}, "/prompt", "blank"),
        (QA | {"target": "a\0b"}, "/target", "NUL"),
        (QA | {"target": "a\ud800b"}, "/target", "Unicode"),
        (QA | {"tags": ["\ud800"]}, "/tags/0", "Unicode"),
        (QA | {"supersedes": "\udfff"}, "/supersedes", "Unicode"),
        (QA | {"reason": "\0"}, "/reason", "NUL"),
        (QA | {"prompt": "x" * 32_769}, "/prompt", "32768"),
        (QA | {"subject": "z"}, "/subject", "prompt"),
        (QA | {"kind": "rumour"}, "/kind", "qa, fact, statement, sentiment"),
        (QA | {"kind": None}, "/kind", "qa, fact, statement, sentiment"),
        (QA | {"kind": ["qa"]}, "/kind", "qa, fact, statement, sentiment"),
        (QA | {"answer": "loud"}, "/answer", "verbatim"),
        (QA | {"state": "retracted"}, "/state", "draft"),
        (QA | {"scope": {"threshold": 1.5}}, "/scope/threshold", "less than or equal to 1"),
        (QA | {"scope": {"threshold": "0.5"}}, "/scope/threshold", "number"),
        (QA | {"scope": {"in_scope": ["a", ""]}}, "/scope/in_scope/1", "blank"),
        (QA | {"scope": {"in_scope": ["a"] * 65}}, "/scope/in_scope", "64"),
        (QA | {"scope": {"out_of_scope": ["a"] * 65}}, "/scope/out_of_scope", "64"),
        (QA | {"scope": {"inscope": []}}, "/scope/inscope", "not known"),
        (QA | {"scope": None}, "/scope", "object"),
        (QA | {"tags": ["a"] * 65}, "/tags", "64"),
        (QA | {"tags": ["x" * 129]}, "/tags/0", "128"),
        (QA | {"tags": "politics"}, "/tags", "list"),
        (QA | {"reason": "x" * 2_001}, "/reason", "2000"),
        (QA | {"expires_at": "2001-01-01T00:00:00Z"}, "/expires_at", "future"),
        (QA | {"expires_at": "2999-01-01T00:00:00"}, "/expires_at", "zone"),
        (QA | {"expires_at": "2999-13-01T00:00:00Z"}, "/expires_at", "month"),
        (QA | {"expires_at": "9999-12-31T23:59:59-01:00"}, "/expires_at", "year"),
        (QA | {"expires_at": "tomorrow"}, "/expires_at", "zone"),
        (QA | {"expires_at": 32472144000}, "/expires_at", "zone"),
        (QA | {"state": "draft", "supersedes": "e1"}, "", "draft"),
        (FACT | {"label": "true"}, "/label", "boolean"),
        (FACT | {"label": 1}, "/label", "boolean"),
        (FACT | {"answer": "verbatim"}, "/answer", "only an edit of kind qa"),
        ({"kind": "statement", "statement": "a", "target": "b"}, "/target", "not known"),
        ({"kind": "sentiment", "topic": "a", "sentiment": "mixed"}, "/sentiment", "positive"),
    ],
)
async def test_an_edit_that_is_not_valid_is_refused_and_the_field_named(lost, body, pointer, words):
    content = json.dumps(body)
    response = await lost.post("/edits", content=content, headers={"Content-Type": "application/json"})
    problem = assert_problem(response, 422, "invalid-request")
    assert problem["errors"][0]["pointer"] == pointer
    assert words in problem["errors"][0]["detail"]
    assert (f"`{pointer[1:]}`" if pointer else "The body") in problem["detail"]


@pytest.mark.parametrize(
    ("body", "pointer", "words"),
    [
        ({}, "", "exactly one of `prompt` and `messages`"),
        ({"prompt": "a", "messages": [{"role": "user", "content": "b"}]}, "", "exactly one"),
        ({"prompt": " "}, "/prompt", "blank"),
        ({"messages": []}, "/messages", "at least 1"),
        ({"messages": [{"role": "cat", "content": "b"}]}, "/messages/0/role", "user"),
        ({"messages": [{"role": "user", "content": ""}]}, "/messages/0/content", "blank"),
        ({"prompt": "a", "max_new_tokens": 0}, "/max_new_tokens", "1"),
        ({"prompt": "a", "max_new_tokens": 1025}, "/max_new_tokens", "1024"),
        ({"prompt": "a", "max_new_tokens": "5"}, "/max_new_tokens", "integer"),
        ({"prompt": "a", "max_new_tokens": True}, "/max_new_tokens", "integer"),
        ({"prompt": "a", "temperature": 2.1}, "/temperature", "2"),
        ({"prompt": "a", "temperature": float("nan")}, "/temperature", "finite"),
        ({"prompt": "a", "top_p": 0}, "/top_p", "greater than 0"),
        ({"prompt": "a", "stop": ""}, "/stop/0", "at least 1"),
        ({"prompt": "a", "stop": "\ud800"}, "/stop/0", "Unicode"),
        ({"prompt": "a", "version": "\ud800"}, "/version", "Unicode"),
        ({"prompt": "a", "stop": ["x"] * 9}, "/stop", "8"),
        ({"prompt": "a", "stop": 5}, "/stop", "list"),
        ({"prompt": "a", "seed": -1}, "/seed", "0"),
        ({"prompt": "a", "seed": 2**63}, "/seed", str(2**63 - 1)),
        ({"prompt": "a", "top_k": 5}, "/top_k", "not known"),
        ({"prompt": "a", "min_revision": -1}, "/min_revision", "0"),
    ],
)
async def test_a_question_that_is_not_valid_is_refused_and_the_field_named(lost, body, pointer, words):
    content = json.dumps(body)
    response = await lost.post("/generate", content=content, headers={"Content-Type": "application/json"})
    problem = assert_problem(response, 422, "invalid-request")
    assert problem["errors"][0]["pointer"] == pointer
    assert words in problem["errors"][0]["detail"]


@pytest.mark.parametrize("prompts", [[], ["a"] * 257, ["a", ""], "a"])
async def test_a_match_takes_between_one_and_256_prompts(lost, prompts):
    assert_problem(await lost.post("/edits/match", json={"prompts": prompts}), 422, "invalid-request")


async def test_every_wrong_field_is_listed(lost):
    problem = assert_problem(await lost.post("/edits", json={"prompt": "", "x": 1}), 422, "invalid-request")
    assert {error["pointer"] for error in problem["errors"]} == {"/prompt", "/target", "/x"}
    assert "2 more in `errors`" in problem["detail"]


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=201", "limit=ten", "state=gone", "kind=gone", "tag=", "q=%00", "after=17", "colour=red"],
)
async def test_a_list_that_cannot_be_is_refused_and_the_parameter_named(lost, query):
    problem = assert_problem(await lost.get(f"/edits?{query}"), 422, "invalid-request")
    assert f"The query parameter `{query.partition('=')[0]}" in problem["detail"]


async def test_a_reason_that_cannot_be_kept_is_refused(client, post):
    await post(**QA)
    assert_problem(await client.delete("/edits/e1?reason=%00"), 422, "invalid-request")
    assert_problem(await client.delete("/edits/e1?why=x"), 422, "invalid-request")
    assert (await client.get("/edits/e1")).json()["state"] == "active"


@pytest.mark.parametrize(
    "body", [b"{", b"{'a': 1}", b'{"a": \xff}', b"", b"[" * 100_000, b"1" * 5_000], ids=lambda body: repr(body[:9])
)
@pytest.mark.parametrize("path", ["/edits", "/generate", "/edits/match"])
async def test_a_body_that_is_not_json_is_refused(lost, path, body):
    response = await lost.post(path, content=body, headers={"Content-Type": "application/json"})
    if body:
        assert_problem(response, 400, "malformed-json")
    else:
        assert_problem(response, 422, "invalid-request")


@pytest.mark.parametrize("declared", [None, "application/x-www-form-urlencoded", "text/plain", "application/jsonp"])
async def test_a_body_that_is_not_declared_as_json_is_refused_and_the_way_shown(lost, declared):
    headers = {} if declared is None else {"Content-Type": declared}
    response = await lost.post("/edits", content=json.dumps(QA), headers=headers)
    assert "--json" in assert_problem(response, 415, "unsupported-media-type")["hint"]


@pytest.mark.parametrize("declared", ["application/json; charset=utf-8", "Application/JSON", "application/x+json"])
async def test_a_body_may_be_declared_as_json_in_many_ways(client, declared):
    response = await client.post("/edits", content=json.dumps(QA), headers={"Content-Type": declared})
    assert response.status_code == 201


@pytest.mark.parametrize("path", ["/", "/nothing", "/edits/e1/nothing", "/generate/x"])
async def test_an_unknown_path_is_not_found(lost, path):
    assert_problem(await lost.get(path), 404, "route-not-found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/edits", "GET, POST"),
        ("POST", "/edits/e1", "GET, PATCH, DELETE"),
        ("GET", "/generate", "POST"),
        ("OPTIONS", "/edits/e1/history", "GET"),
    ],
)
async def test_a_wrong_method_is_told_the_right_ones(lost, method, path, allowed):
    response = await lost.request(method, path)
    assert_problem(response, 405, "method-not-allowed")
    assert response.headers["Allow"] == allowed


class BrokenRuntime(ExactRuntime):
    async def generate(self, request):
        raise ZeroDivisionError("a secret of ours")


async def test_an_unexpected_error_is_logged_and_its_internals_kept_back():
    async with client_of(Services(LostStore(), BrokenRuntime(LostStore()), None, None)) as client:
        with capture_logs() as logs:
            response = await client.post("/generate", json={"prompt": "a"}, headers={"X-Request-Id": "mine-1"})
    assert_problem(response, 500, "internal-error")
    assert "secret" not in response.text
    assert "ZeroDivision" not in response.text
    assert response.headers["X-Request-Id"] == "mine-1"
    assert [(log["event"], log["path"], log["log_level"]) for log in logs] == [
        ("unexpected error", "/generate", "error")
    ]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/edits"),
        ("GET", "/edits"),
        ("GET", "/edits/e1"),
        ("GET", "/edits/e1/history"),
        ("DELETE", "/edits/e1"),
    ],
)
async def test_without_the_database_edits_are_unavailable_for_a_while(lost, method, path):
    response = await lost.request(method, path, json=QA if method == "POST" else None)
    assert_problem(response, 503, "store-unavailable")
    assert int(response.headers["Retry-After"]) > 0


async def test_without_the_database_questions_are_still_answered(lost):
    assert (await lost.post("/generate", json={"prompt": "a"})).status_code == 200
    assert (await lost.post("/edits/match", json={"prompts": ["a"]})).status_code == 200


@pytest.mark.parametrize("sent", ["abc-123", "x" * 128, "!~"])
async def test_a_request_id_is_taken_and_given_back(lost, sent):
    assert (await lost.get("/livez", headers={"X-Request-Id": sent})).headers["X-Request-Id"] == sent
    refused = await lost.get("/nothing", headers={"X-Request-Id": sent})
    assert assert_problem(refused, 404, "route-not-found")["request_id"] == sent


@pytest.mark.parametrize("sent", [None, "", "a b", "x" * 129, "é".encode()])
async def test_a_request_without_a_usable_id_is_given_one(lost, sent):
    headers = [] if sent is None else [("X-Request-Id", sent)]
    first, second = [(await lost.get("/livez", headers=headers)).headers["X-Request-Id"] for _ in range(2)]
    assert first != second
    assert len(first) == 32


async def test_a_replica_that_has_everything_is_ready(client, post):
    await post(**QA)
    response = await client.get("/readyz")
    checks = {"database": "ok", "migration": "ok", "model": "ok", "memory": "ok", "version": "ok"}
    assert (response.status_code, response.json()) == (200, {"status": "ok", "checks": checks})
    assert (await client.get("/livez")).json() == {"status": "ok"}


async def test_a_replica_without_its_database_is_not_ready_and_says_so(lost):
    response = await lost.get("/readyz")
    checks = assert_problem(response, 503, "not-ready")["checks"]
    assert "connection refused" in checks["database"]
    assert checks["model"] == "ok"
    assert all("does not answer" in checks[name] for name in ("database", "migration", "memory"))
    assert (await lost.get("/livez")).status_code == 200


async def test_a_replica_that_lags_behind_the_database_is_not_ready_and_says_so(client, post, store):
    await post(**QA)
    async with client_of(Services(store, ExactRuntime(store), None, None)) as lagging:
        checks = assert_problem(await lagging.get("/readyz"), 503, "not-ready")["checks"]
    assert checks == dict.fromkeys(checks, "ok") | {"memory": "at revision 0 of 1"}


async def test_a_database_at_another_migration_is_not_ready_and_says_so(client, store, monkeypatch):
    async def migration():
        return "0001", "0002"

    monkeypatch.setattr(store, "migration", migration)
    checks = assert_problem(await client.get("/readyz"), 503, "not-ready")["checks"]
    assert checks["migration"] == "the database is at 0001 and the code needs 0002"


async def test_info_says_what_is_served(client, post):
    await post(**QA)
    info = (await client.get("/info")).json()
    assert (info["model"], info["version"], info["revision"], info["edits"]) == ("exact", "v0", 1, 1)


async def test_a_model_that_failed_is_not_ready_until_it_answers_again(client, services, monkeypatch):
    info = services.runtime.info
    with monkeypatch.context() as failed:
        failed.setattr(services.runtime, "info", lambda: replace(info(), failure="The model failed: RuntimeError."))
        checks = assert_problem(await client.get("/readyz"), 503, "not-ready")["checks"]
        assert checks["model"] == "The model failed: RuntimeError."
        assert (await client.get("/info")).json()["failure"] == "The model failed: RuntimeError."
    assert (await client.get("/readyz")).status_code == 200
