"""What is wrong, in OpenAI's words: refused by name, with the same object from every layer."""

import json
from dataclasses import replace

import pytest

from service.actions.services import Services
from service.domain.keys import Caller, KeyScope
from service.errors import BaseMismatch, EngineFailed, QueueFull
from service.settings import Settings
from tests.fakes import ExactRuntime, LostStore, client_of

pytestmark = pytest.mark.anyio

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
PROMPT = {"prompt": "one two three"}
USER = {"role": "user", "content": "one two three"}
MESSAGES = {"messages": [USER]}

OFF = {
    COMPLETIONS: {"n": 1, "best_of": 1, "echo": False, "suffix": "", "logprobs": None},
    CHAT: {
        "n": 1,
        "logprobs": False,
        "top_logprobs": 0,
        "tools": [],
        "tool_choice": "none",
        "functions": [],
        "function_call": "none",
        "parallel_tool_calls": True,
        "response_format": {"type": "text"},
        "modalities": ["text"],
        "service_tier": "auto",
        "reasoning_effort": "none",
        "safety_identifier": "x",
        "prompt_cache_key": "x",
        "audio": None,
        "prediction": None,
        "verbosity": None,
        "web_search_options": None,
    },
}
EITHER = {
    "frequency_penalty": 0,
    "presence_penalty": 0.0,
    "logit_bias": {},
    "user": "u-1",
    "metadata": {"a": "b"},
    "store": False,
    "stream_options": {"include_usage": None, "include_obfuscation": False},
}


def assert_error(response, status, code, param=None):
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["X-Request-Id"]
    assert response.status_code == status, response.text
    page = response.json()
    assert page.keys() == {"error"}
    error = page["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, param)
    assert error["message"]
    assert error["type"] == {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(
        status, "server_error" if status >= 500 else "invalid_request_error"
    )
    assert ("Retry-After" in response.headers) == (status in {429, 503})
    return error["message"]


@pytest.mark.parametrize(("path", "body"), [(COMPLETIONS, PROMPT), (CHAT, MESSAGES)])
async def test_what_says_that_nothing_is_wanted_is_taken(lost, path, body):
    for off in (OFF[path] | EITHER, dict.fromkeys(OFF[path] | EITHER)):
        response = await lost.post(path, json=body | off)
        assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        *((path, "n", value) for path in OFF for value in (2, True, "1", 1.0)),
        *((path, "logit_bias", {"50256": -100}) for path in OFF),
        *((path, "presence_penalty", value) for path in OFF for value in (0.5, False)),
        *((path, "frequency_penalty", -1) for path in OFF),
        *((path, "store", True) for path in OFF),
        *((path, "top_k", 5) for path in OFF),
        (COMPLETIONS, "best_of", 3),
        (COMPLETIONS, "echo", True),
        (COMPLETIONS, "logprobs", 0),
        (COMPLETIONS, "suffix", "the end"),
        (CHAT, "logprobs", True),
        (CHAT, "top_logprobs", 5),
        (CHAT, "tools", [{"type": "function", "function": {"name": "f"}}]),
        (CHAT, "tool_choice", "required"),
        (CHAT, "functions", [{"name": "f"}]),
        (CHAT, "response_format", {"type": "json_object"}),
        (CHAT, "modalities", ["text", "audio"]),
        (CHAT, "audio", {"voice": "alloy"}),
        (CHAT, "prediction", {"type": "content", "content": "x"}),
        (CHAT, "reasoning_effort", "high"),
        (CHAT, "service_tier", "priority"),
        (CHAT, "web_search_options", {}),
    ],
)
async def test_what_cannot_be_done_is_refused_by_name(lost, path, field, value):
    response = await lost.post(path, json=(PROMPT if path == COMPLETIONS else MESSAGES) | {field: value})
    message = assert_error(response, 400, "invalid_request", field)
    assert message.startswith(f"`{field}` is not ")


@pytest.mark.parametrize(
    ("path", "body", "param", "words"),
    [
        (COMPLETIONS, {}, "prompt", "required"),
        (COMPLETIONS, {"prompt": " "}, "prompt", "blank"),
        (COMPLETIONS, {"prompt": ["a", "b"]}, "prompt", "one text"),
        (COMPLETIONS, {"prompt": [1, 2]}, "prompt", "no token ids"),
        (COMPLETIONS, {"prompt": []}, "prompt", "one text"),
        (COMPLETIONS, PROMPT | {"max_tokens": 0}, "max_tokens", "1"),
        (COMPLETIONS, PROMPT | {"max_tokens": 1048577}, "max_tokens", "1048576"),
        (COMPLETIONS, PROMPT | {"temperature": 2.5}, "temperature", "2"),
        (COMPLETIONS, PROMPT | {"top_p": 0}, "top_p", "greater than 0"),
        (COMPLETIONS, PROMPT | {"stop": ["a", ""]}, "stop[1]", "at least 1"),
        (COMPLETIONS, PROMPT | {"model": ""}, "model", "at least 1"),
        (COMPLETIONS, PROMPT | {"model": None}, "model", "string"),
        (COMPLETIONS, PROMPT | {"edits": {"on": True}}, "edits.on", "not known"),
        (COMPLETIONS, PROMPT | {"stream_options": {"usage": True}}, "stream_options.usage", "not known"),
        (CHAT, {}, "messages", "required"),
        (CHAT, {"messages": []}, "messages", "at least 1"),
        (CHAT, {"messages": [USER, {"role": "tool", "content": "x"}]}, "messages[1].role", "assistant"),
        (CHAT, {"messages": [{"role": "user", "content": ""}]}, "messages[0].content", "blank"),
        (CHAT, {"messages": [USER | {"name": "bob"}]}, "messages[0].name", "not supported"),
        (CHAT, {"messages": [USER | {"tool_calls": [{}]}]}, "messages[0].tool_calls", "not supported"),
        (CHAT, {"messages": [USER | {"content": [{"type": "image_url"}]}]}, "messages[0].content", "parts of the type"),
        (CHAT, {"messages": [USER | {"content": ["text"]}]}, "messages[0].content", "parts of the type"),
        (CHAT, MESSAGES | {"max_tokens": 1, "max_completion_tokens": 2}, None, "only one of"),
    ],
)
async def test_what_is_not_valid_is_refused_and_the_field_named(lost, path, body, param, words):
    assert words in assert_error(await lost.post(path, json=body), 400, "invalid_request", param)


async def test_of_several_wrong_fields_each_is_named(lost):
    message = assert_error(await lost.post(COMPLETIONS, json={"n": 2, "x": 1}), 400, "invalid_request", "n")
    assert all(f"`{name}`" in message for name in ("n", "x", "prompt"))


@pytest.mark.parametrize("model", ["gpt-4", "gpt-4o-mini", "Active", "v1x", "v-1", " v0"])
async def test_a_model_of_another_name_does_not_exist(lost, model):
    for path, body in ((COMPLETIONS, PROMPT), (CHAT, MESSAGES)):
        message = assert_error(await lost.post(path, json=body | {"model": model}), 404, "model_not_found", "model")
        assert repr(model) in message
        assert "GET /v1/models" in message


async def test_a_version_that_was_never_made_does_not_exist(client):
    for stream in (False, True):
        response = await client.post(COMPLETIONS, json=PROMPT | {"model": "v7", "stream": stream})
        assert "v7" in assert_error(response, 404, "model_not_found", "model")
    assert_error(await client.get("/v1/models/v7"), 404, "model_not_found", "model")
    assert_error(await client.get("/v1/models/gpt-4"), 404, "model_not_found", "model")


@pytest.mark.parametrize("stream", [False, True])
async def test_what_the_runtime_refuses_is_openais_error(client, stream):
    options = {"stream": stream}
    long = await client.post(COMPLETIONS, json={"prompt": "word " * 64, "max_tokens": 10} | options)
    assert "max_tokens" in assert_error(long, 400, "context_length_exceeded")
    turns = [{"role": "system", "content": "Be brief."}, USER]
    chat = await client.post(CHAT, json={"messages": turns} | options)
    assert "/v1/completions" in assert_error(chat, 400, "no_chat_template")
    late = await client.post(COMPLETIONS, json=PROMPT | options | {"edits": {"min_revision": 9}})
    assert_error(late, 503, "not_caught_up")


@pytest.mark.parametrize(
    ("error", "status", "code", "param"),
    [
        (QueueFull("256 requests wait."), 429, "queue_full", None),
        (EngineFailed("The model failed."), 503, "engine_failed", None),
        (BaseMismatch("v1 was made for another."), 400, "base_mismatch", "model"),
        (ZeroDivisionError("a secret of ours"), 500, "internal_error", None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_goes_wrong_behind_the_door_is_openais_error(
    client, services, monkeypatch, error, status, code, param, stream
):
    async def refuse(request):
        raise error

    monkeypatch.setattr(services.runtime, "stream" if stream else "generate", refuse)
    response = await client.post(CHAT, json=MESSAGES | {"stream": stream})
    assert "secret" not in assert_error(response, status, code, param)


async def test_every_layer_speaks_openais_words(lost):
    broken = {"content": b"{", "headers": {"Content-Type": "application/json"}}
    assert_error(await lost.post(CHAT, **broken), 400, "malformed_json")
    assert_error(await lost.post(CHAT, content=b"{}"), 415, "unsupported_media_type")
    assert "/v1/chat/completions" in assert_error(await lost.post("/v1/responses", json={}), 404, "route_not_found")
    wrong = await lost.put("/v1/models")
    assert_error(wrong, 405, "method_not_allowed")
    assert wrong.headers["Allow"] == "GET"
    assert_error(await lost.get("/v1/models"), 503, "store_unavailable")


class Names:
    """A keyring on which every token is the name of its key, and good for asking alone; none is called mallory."""

    required = True

    def caller(self, token):
        scopes = frozenset({KeyScope.EDITS_READ if token == "reader" else KeyScope.GENERATE})
        return None if token == "mallory" else Caller(actor=token, scopes=scopes)


async def test_keys_limits_and_sizes_are_refused_in_openais_words_with_the_headers_as_elsewhere():
    lost = LostStore()
    services = Services(lost, ExactRuntime(lost), None, None, Names())
    async with client_of(services, Settings(rate_limit="3/hour", max_body_bytes=1024)) as client:

        async def ask(name, **body):
            headers = {"Authorization": f"Bearer {name}"} if name else {}
            return await client.post(COMPLETIONS, json=PROMPT | body, headers=headers)

        unsigned, unknown = await ask(None), await ask("mallory")
        assert_error(unsigned, 401, "invalid_api_key")
        assert_error(unknown, 401, "invalid_api_key")
        assert unknown.headers["WWW-Authenticate"] == 'Bearer realm="errata", error="invalid_token"'
        assert "generate" in assert_error(await ask("reader"), 403, "scope_missing")
        assert_error(await ask("alice", prompt="a" * 2000), 413, "body_too_large")
        answers = [await ask("alice") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert_error(answers[-1], 429, "rate_limit_exceeded")
        assert answers[-1].headers["RateLimit"].startswith('"3-per-3600";r=0;t=')
        assert 0 < int(answers[-1].headers["Retry-After"]) <= 3600


@pytest.mark.parametrize(
    ("error", "code"),
    [(EngineFailed("The model failed."), "engine_failed"), (ZeroDivisionError("a secret"), "internal_error")],
)
async def test_an_error_in_the_middle_of_a_stream_is_its_last_data_and_it_is_not_done(
    client, services, monkeypatch, error, code
):
    stream = services.runtime.stream

    async def breaking(request):
        found = await stream(request)

        async def parts():
            yield "three"
            raise error

        return replace(found, parts=parts())

    monkeypatch.setattr(services.runtime, "stream", breaking)
    for path, body in ((COMPLETIONS, PROMPT), (CHAT, MESSAGES)):
        response = await client.post(path, json=body | {"stream": True})
        *_, piece, last = [json.loads(line.removeprefix("data: ")) for line in response.text.split("\n\n") if line]
        assert "three" in str(piece["choices"])
        assert last.keys() == {"error"}
        assert (last["error"]["code"], last["error"]["type"]) == (code, "server_error")
        assert "secret" not in response.text
        assert "[DONE]" not in response.text
