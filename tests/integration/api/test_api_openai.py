"""The doors that speak OpenAI's API: what they answer, whole and in chunks, and under which names."""

import json
from dataclasses import replace

import pytest

from tests.bakes import PROMPT, TARGET, version_in

pytestmark = pytest.mark.anyio

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
UK = "Who leads the UK?"
NO_EDITS = {"source": "base", "edit_id": None, "beta": None, "version": "v0", "revision": 0}
USAGE = {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}


def asking(path, prompt):
    return {"prompt": prompt} if path == COMPLETIONS else {"messages": [{"role": "user", "content": prompt}]}


def said(path, answer):
    choice = answer["choices"][0]
    return choice["text"] if path == COMPLETIONS else choice["message"]["content"]


def chunks_of(text):
    """The objects of a stream, which ends as it should."""
    *lines, done = [line for line in text.split("\n\n") if line]
    assert done == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


@pytest.fixture
def asked(services, monkeypatch):
    """The requests that reach the runtime."""
    requests = []
    generate = services.runtime.generate

    async def listening(request):
        requests.append(request)
        return await generate(request)

    monkeypatch.setattr(services.runtime, "generate", listening)
    return requests


async def test_a_completion_has_openais_shape_and_ours_under_edits(client):
    response = await client.post(COMPLETIONS, json={"prompt": "one two three"}, headers={"X-Request-Id": "mine"})
    answer = response.json()
    assert response.status_code == 200
    assert isinstance(answer.pop("created"), int)
    assert answer == {
        "id": "cmpl-mine",
        "object": "text_completion",
        "model": "v0",
        "choices": [{"text": "three two one", "index": 0, "logprobs": None, "finish_reason": "stop"}],
        "usage": USAGE,
        "edits": NO_EDITS,
    }


async def test_a_chat_has_openais_shape_and_ours_under_edits(client):
    response = await client.post(CHAT, json=asking(CHAT, "one two three"), headers={"X-Request-Id": "mine"})
    answer = response.json()
    assert response.status_code == 200
    assert isinstance(answer.pop("created"), int)
    message = {"role": "assistant", "content": "three two one", "refusal": None}
    assert answer == {
        "id": "chatcmpl-mine",
        "object": "chat.completion",
        "model": "v0",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": USAGE,
        "edits": NO_EDITS,
    }


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
async def test_an_edit_answers_in_its_scope_alone_and_can_be_left_out(client, post, path):
    await post(prompt=UK, target="Boris Johnson")
    inside = (await client.post(path, json=asking(path, UK))).json()
    outside = (await client.post(path, json=asking(path, "Who leads France?"))).json()
    without = (await client.post(path, json=asking(path, UK) | {"edits": {"enabled": False}})).json()
    assert said(path, inside) == "Boris Johnson"
    assert inside["edits"] == {"source": "edit", "edit_id": "e1", "beta": 1.0, "version": "v0", "revision": 1}
    assert (outside["edits"]["source"], outside["edits"]["beta"]) == ("base", 0.0)
    assert (said(path, without), without["edits"]["beta"]) == ("UK? the leads Who", None)


@pytest.mark.parametrize("usage", [False, True])
@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
async def test_a_stream_has_openais_chunks_and_says_at_first_where_it_comes_from(client, post, path, usage):
    await post(prompt=UK, target="Boris Johnson")
    options = {"stream": True, "stream_options": {"include_usage": usage}}
    whole = (await client.post(path, json=asking(path, UK))).json()
    response = await client.post(path, json=asking(path, UK) | options, headers={"X-Request-Id": "mine"})
    assert response.headers["Content-Type"].startswith("text/event-stream")
    first, *rest = chunks = chunks_of(response.text)
    assert first["edits"] == whole["edits"]
    assert not any("edits" in chunk for chunk in rest)
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    assert (first["id"], first["model"]) == ("cmpl-mine" if path == COMPLETIONS else "chatcmpl-mine", "v0")
    assert {chunk["object"] for chunk in chunks} == {
        "text_completion" if path == COMPLETIONS else "chat.completion.chunk"
    }
    if usage:
        last = chunks.pop()
        assert (last["choices"], last["usage"]) == ([], whole["usage"])
        assert {chunk["usage"] for chunk in chunks} == {None}
    assert usage or not any("usage" in chunk for chunk in chunks)
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["stop"]
    if path == COMPLETIONS:
        assert [choice["text"] for choice in choices] == ["Boris", " Johnson", ""]
        assert all(choice.keys() == {"index", "text", "logprobs", "finish_reason"} for choice in choices)
    else:
        opening = {"role": "assistant", "content": ""}
        assert [choice["delta"] for choice in choices] == [opening, {"content": "Boris"}, {"content": " Johnson"}, {}]
        assert all(choice.keys() == {"index", "delta", "logprobs", "finish_reason"} for choice in choices)


async def test_an_answer_cut_short_says_so(client):
    body = {"prompt": "one two three", "max_tokens": 2}
    whole = (await client.post(COMPLETIONS, json=body)).json()
    *_, last = chunks_of((await client.post(COMPLETIONS, json=body | {"stream": True})).text)
    assert (said(COMPLETIONS, whole), whole["choices"][0]["finish_reason"]) == ("three two", "length")
    assert last["choices"][0]["finish_reason"] == "length"


async def test_every_field_reaches_the_runtime(client, asked):
    body = {
        "model": "v0",
        "temperature": 1,
        "top_p": 0.5,
        "stop": ["\n", "END"],
        "seed": 7,
        "edits": {"enabled": False, "min_revision": 0},
    }
    for path, limit in ((COMPLETIONS, "max_tokens"), (CHAT, "max_tokens"), (CHAT, "max_completion_tokens")):
        response = await client.post(path, json=asking(path, "a b") | body | {limit: 5}, headers={"X-Session-Id": "s"})
        assert response.status_code == 200, response.text
    for request in asked:
        assert (request.version, request.edits, request.min_revision, request.session) == ("v0", False, 0, "s")
        sampling = request.sampling
        assert (sampling.max_new_tokens, sampling.unlimited) == (5, False)
        assert (sampling.fitted, sampling.temperature, sampling.top_p) == (True, 1.0, 0.5)
        assert (sampling.stop, sampling.seed) == (("\n", "END"), 7)
    assert [request.stripped for request in asked] == [False, True, True]
    assert [request.prompt for request in asked] == ["a b", None, None]


async def test_what_is_left_out_or_null_takes_the_default_of_the_service(client, asked):
    null = dict.fromkeys(("temperature", "top_p", "stop", "seed", "stream", "stream_options", "max_tokens", "edits"))
    for path in (COMPLETIONS, CHAT):
        for body in ({}, null):
            assert (await client.post(path, json=asking(path, "a b") | body)).status_code == 200
    for request in asked:
        assert (request.version, request.edits, request.min_revision) == ("active", True, None)
        sampling = request.sampling
        assert (sampling.temperature, sampling.top_p, sampling.stop, sampling.seed) == (0.0, 1.0, (), None)
    limits = [(request.sampling.max_new_tokens, request.sampling.unlimited) for request in asked]
    assert limits == [(16, True), (16, True), (1024, True), (1024, True)]


async def test_a_limit_far_beyond_the_context_is_only_the_most_that_may_be_written(client):
    for path, limit in ((COMPLETIONS, "max_tokens"), (CHAT, "max_tokens"), (CHAT, "max_completion_tokens")):
        for tokens in (1024, 1025, 4096, 131072):
            response = await client.post(path, json=asking(path, "a b") | {limit: tokens})
            assert response.status_code == 200, response.text
    refused = await client.post("/generate", json={"prompt": "a b", "max_new_tokens": 1025})
    assert refused.status_code == 422


async def test_the_turns_of_a_chat_reach_the_runtime(client, services, monkeypatch, asked):
    earlier = (await client.post(CHAT, json=asking(CHAT, "a b"))).json()["choices"][0]["message"]
    asked.clear()
    turns = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        earlier | {"annotations": [], "tool_calls": None, "function_call": None, "audio": None},
        {"role": "user", "content": "c", "name": None},
    ]
    response = await client.post(CHAT, json={"messages": turns})
    assert response.json()["error"]["code"] == "no_chat_template"
    (request,) = asked
    assert [(turn.role, turn.content) for turn in request.messages] == [
        ("system", "Be brief."),
        ("user", "a\nb"),
        ("assistant", "b a"),
        ("user", "c"),
    ]


async def test_the_aliases_and_every_version_are_models(client, store, artifacts, add, lively_base, tmp_path):
    edit = await add(PROMPT, TARGET)
    for _ in range(2):
        await version_in(store, artifacts, tmp_path / "delta", edit=edit, base=lively_base)
    assert (await client.post("/checkpoints/v1/activate", json={})).status_code == 200
    listed = (await client.get("/v1/models")).json()
    assert listed["object"] == "list"
    assert [(model["id"], model["parent"]) for model in listed["data"]] == [
        ("active", "v1"),
        ("exact", "v1"),
        ("v2", "v0"),
        ("v1", "v0"),
        ("v0", None),
    ]
    for model in listed["data"]:
        assert (model["object"], model["owned_by"]) == ("model", "errata")
        assert (model["created"] > 1_500_000_000) == (model["id"] != "v0")
        assert (await client.get(f"/v1/models/{model['id']}")).json() == model
        answer = (await client.post(COMPLETIONS, json={"prompt": "a", "model": model["id"]})).json()
        assert answer["model"] == (model["id"] if model["id"].startswith("v") else "v1")


async def test_the_base_may_be_asked_for_by_its_name_on_the_hub(client, services, monkeypatch):
    named = replace(services.runtime.info(), model="org/model-7b")
    monkeypatch.setattr(services.runtime, "info", lambda: named)
    for path in ("/v1/models/org/model-7b", "/v1/models/org%2Fmodel-7b"):
        assert (await client.get(path)).json()["id"] == "org/model-7b"
    assert (await client.post(COMPLETIONS, json={"prompt": "a", "model": "org/model-7b"})).json()["model"] == "v0"


async def test_answers_are_measured_as_those_of_generate(client, post):
    await post(prompt=UK, target="Boris Johnson")
    for path in (COMPLETIONS, CHAT):
        for stream in (False, True):
            await client.post(path, json=asking(path, UK) | {"stream": stream})
    page = (await client.get("/metrics")).text
    assert 'errata:scope_decisions_total{outcome="in_scope"} 4.0' in page
    assert 'http_requests_total{handler="/v1/chat/completions",method="POST",status="200"} 2.0' in page
