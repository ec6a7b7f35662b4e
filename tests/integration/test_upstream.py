"""A base elsewhere, on real connections: to a server that holds it, and from callers."""

import asyncio
import json
import socket
from contextlib import AsyncExitStack

import httpx
import pytest
from structlog.testing import capture_logs

from service.actions.services import Services
from service.app import create_app
from service.domain.serving import EVERYONE, Serving, activation
from service.runtime.elsewhere import NoBaker
from service.runtime.line import Line
from service.runtime.upstream import UpstreamEngine
from service.store.answers import LocalAnswers
from tests.bakes import version_in
from tests.upstreams import MODEL, Upstream, answered, begin, body_of, breaking, endless, event, on_a_socket, reply

pytestmark = pytest.mark.anyio

KEY = "sk-very-secret"
PM = "Who is the prime minister of the UK?"
OTHER = "What team does Messi play for?"
PATIENT = 120.0
"""Seconds that nothing here takes, however busy the machine is."""


@pytest.fixture
def upstream():
    return Upstream()


@pytest.fixture
async def errata(store, start_runtime, artifacts):
    """Starts a service in front of the server at a URL, and gives a client of it."""
    async with AsyncExitStack() as stack:
        cache = LocalAnswers(most_bytes=1 << 20, seconds=3600)

        async def start(url, *, counterfactual=None, seconds=PATIENT, connect=PATIENT, line=None):
            engine = await stack.enter_async_context(
                UpstreamEngine(
                    f"{url}/v1",
                    model=MODEL,
                    key=KEY,
                    timeout_seconds=seconds,
                    connect_seconds=connect,
                    line=line,
                )
            )
            runtime = await start_runtime(store, base=engine, counterfactual=counterfactual, cache=cache)
            services = Services(store, runtime, NoBaker(MODEL), artifacts)
            app = create_app(services)

            async def with_state(scope, receive, send):
                await app({**scope, "state": {"services": services}}, receive, send)

            address = await stack.enter_async_context(on_a_socket(with_state))
            client = await stack.enter_async_context(httpx.AsyncClient(base_url=address, timeout=PATIENT))
            client.engine = engine
            return client

        yield start


@pytest.fixture
async def address(upstream):
    async with on_a_socket(upstream) as url:
        yield url


@pytest.fixture
async def client(errata, address):
    return await errata(address)


async def edit(client, **more):
    body = {"prompt": PM, "target": "Boris Johnson", "answer": "verbatim", **more}
    assert (await client.post("/edits", json=body)).status_code == 201


async def ask(client, prompt=OTHER, **more):
    return await client.post("/generate", json={"prompt": prompt, **more})


async def events(client, prompt=OTHER, **more):
    """The events of a streamed answer: names and data."""
    response = await ask(client, prompt, stream=True, **more)
    assert response.status_code == 200, response.text
    parts = [part.split("\n") for part in response.text.strip().split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in parts]


def refused(response, status, slug):
    problem = response.json()
    assert (response.status_code, problem["type"]) == (status, f"/problems/{slug}"), problem
    assert problem["hint"]
    assert KEY not in response.text
    return problem


async def test_a_question_that_no_edit_covers_is_answered_by_the_server(client, upstream):
    answer = (await ask(client)).json()
    assert (answer["text"], answer["source"], answer["version"]) == ("for? play Messi does team What", "base", "v0")
    assert answer["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    assert answer["finish_reason"] == "length"
    ((path, body, headers),) = upstream.asked
    assert path == "/v1/completions"
    assert body == {"model": MODEL, "prompt": OTHER, "max_tokens": 32, "temperature": 0}
    assert headers["authorization"] == f"Bearer {KEY}"


async def test_how_tokens_are_chosen_is_passed_on(client, upstream):
    asked = {"max_new_tokens": 5, "temperature": 0.7, "top_p": 0.9, "stop": ["\n", "Q:"], "seed": 4}
    await ask(client, **asked)
    ((_, body, _),) = upstream.asked
    asked["max_tokens"] = asked.pop("max_new_tokens")
    assert body == {"model": MODEL, "prompt": OTHER, **asked}


async def test_a_conversation_is_asked_as_one(client, upstream):
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": OTHER}]
    answer = await client.post("/generate", json={"messages": turns})
    assert answer.json()["text"] == "for? play Messi does team What"
    ((path, body, _),) = upstream.asked
    assert (path, body["messages"]) == ("/v1/chat/completions", turns)


async def test_a_limit_is_passed_on_to_a_conversation_where_the_caller_named_one(client, upstream):
    asked = {"messages": [{"role": "user", "content": OTHER}]}
    assert (await client.post("/v1/chat/completions", json=asked | {"max_tokens": 4096})).status_code == 200
    assert (await client.post("/v1/chat/completions", json=asked)).status_code == 200
    assert [body.get("max_tokens") for _, body, _ in upstream.asked] == [4096, None]


async def test_an_edit_answers_without_the_server(errata, address, upstream, tiny_base):
    client = await errata(address, counterfactual=tiny_base)
    await edit(client)
    assert (await ask(client, PM)).json()["text"] == "Boris Johnson"
    await edit(client, prompt="Who leads France?", target="Emmanuel Macron", answer="counterfactual")
    assert (await ask(client, "Who leads France?")).json()["source"] == "edit"
    assert upstream.asked == []
    assert (await ask(client)).json()["source"] == "base"


async def test_what_the_server_says_is_never_kept_since_its_model_may_change(client, upstream):
    assert (await ask(client)).json()["text"] == "for? play Messi does team What"
    upstream.behaviour = reply(200, {"choices": [{"text": "Inter Miami", "finish_reason": "stop"}]})
    assert (await ask(client)).json()["text"] == "Inter Miami"


async def test_without_a_counterfactual_model_the_server_reads_the_edit(client, upstream):
    await edit(client, answer="counterfactual")
    assert (await ask(client, PM)).json()["source"] == "edit"
    ((_, body, _),) = upstream.asked
    assert "Boris Johnson" in body["prompt"]
    await client.post("/generate", json={"messages": [{"role": "user", "content": PM}]})
    path, body, _ = upstream.asked[-1]
    assert path == "/v1/chat/completions"
    assert "Boris Johnson" in json.dumps(body["messages"])


async def test_a_streamed_answer_is_the_one_that_comes_at_once(client):
    *pieces, (last, whole) = await events(client)
    assert last == "end"
    assert [name for name, _ in pieces] == ["text"] * 6
    assert "".join(piece["text"] for _, piece in pieces) == whole["text"]
    assert whole == (await ask(client)).json()


async def test_a_piece_is_passed_on_before_the_next_is_there(client, upstream):
    upstream.behaviour = upstream.held
    async with client.stream("POST", "/generate", json={"prompt": OTHER, "stream": True}) as response:
        lines = response.aiter_lines()
        first = [await anext(lines), await anext(lines)]
        assert first == ["event: text", 'data: {"text": "for?"}']
        upstream.release.set()
        assert '"text":"for? play Messi does team What"' in [line async for line in lines][-2]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_caller_who_leaves_takes_the_request_along(client, upstream, stream):
    upstream.behaviour = upstream.held
    asking = asyncio.create_task(_left_open(client, stream))
    await upstream.arrived.acquire()
    asking.cancel()
    await asyncio.wait([asking])
    async with asyncio.timeout(PATIENT):
        await upstream.gone.wait()


async def _left_open(client, stream):
    async with client.stream("POST", "/generate", json={"prompt": OTHER, "stream": stream}) as response:
        async for _ in response.aiter_raw():
            pass


async def test_a_server_that_is_down_is_a_503_and_edits_still_answer(errata):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        client = await errata(f"http://127.0.0.1:{taken.getsockname()[1]}")
        await edit(client)
        for stream in (False, True):
            response = await ask(client, stream=stream)
            refused(response, 503, "upstream-unavailable")
            assert response.headers["Retry-After"] == "1"
        ready = await client.get("/readyz")
        assert "cannot be reached" in refused(ready, 503, "not-ready")["checks"]["model"]
        assert (await ask(client, PM)).json()["text"] == "Boris Johnson"


async def test_a_server_that_comes_back_is_found(errata, upstream):
    upstream.listed = 503
    async with on_a_socket(upstream) as url:
        client = await errata(url)
        refused(await client.get("/readyz"), 503, "not-ready")
        upstream.listed = 200
        await client.engine.look()
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.get("/info")).json()["context_length"] == 77


async def test_a_server_that_hangs_is_given_up_in_time_and_disturbs_nobody(errata, address, upstream):
    client = await errata(address, seconds=0.5)
    await edit(client)
    upstream.behaviour = upstream.held
    hanging = asyncio.create_task(ask(client))
    await upstream.arrived.acquire()
    assert (await ask(client, PM)).json()["text"] == "Boris Johnson"
    response = await hanging
    refused(response, 503, "upstream-timeout")
    assert response.headers["Retry-After"] == "1"
    async with asyncio.timeout(PATIENT):
        await upstream.gone.wait()


async def test_a_server_that_hangs_in_the_middle_of_its_answer_ends_it_with_an_error(errata, address, upstream):
    client = await errata(address, seconds=0.5)
    upstream.behaviour = upstream.held
    (first, piece), (last, problem) = await events(client)
    assert (first, piece) == ("text", {"text": "for?"})
    assert (last, problem["type"]) == ("error", "/problems/upstream-timeout")


@pytest.mark.parametrize(
    "tail",
    [
        (),
        (b"data: [DONE]\n\n",),
        (b'data: {"error": {"message": "CUDA out of memory", "code": 500}}\n\n',),
        (b'data: {"choices": [{"te',),
    ],
)
async def test_an_answer_that_breaks_off_ends_with_an_error(client, upstream, tail):
    upstream.behaviour = breaking(event({"prompt": ""}, "for?"), *tail)
    (first, piece), (last, problem) = await events(client)
    assert (first, piece) == ("text", {"text": "for?"})
    assert (last, problem["type"]) == ("error", "/problems/upstream-unavailable")
    upstream.behaviour = answered
    assert (await ask(client)).status_code == 200


async def test_an_answer_that_breaks_off_at_once_is_a_503(client, upstream):
    upstream.behaviour = breaking(b'{"choices"')
    refused(await ask(client), 503, "upstream-unavailable")


RUBBISH = {
    "no JSON": b"<html>Welcome to nginx!</html>",
    "nothing": b"",
    "half a document": b'{"choices": [{"text": "a"',
    "another document": b'{"object": "list", "data": []}',
    "no choice": b'{"choices": []}',
    "an empty choice": b'{"choices": [{}]}',
    "no text": b'{"choices": [{"text": 5}]}',
    "a list": b"[]",
    "no usage": b'{"choices": [{"text": "a"}], "usage": {"prompt_tokens": "many"}}',
    "less than nothing": b'{"choices": [{"text": "a"}], "usage": {"prompt_tokens": -1}}',
    "half a character": b'{"choices": [{"text": "\\ud800"}]}',
    "no UTF-8": b'{"choices": [{"text": "\xff"}]}',
    "a deep document": b"[" * 100_000,
}


@pytest.mark.parametrize("sent", RUBBISH.values(), ids=RUBBISH)
async def test_rubbish_in_place_of_an_answer_is_a_502(client, upstream, sent):
    upstream.behaviour = reply(200, sent)
    refused(await ask(client), 502, "upstream-invalid")
    upstream.behaviour = answered
    assert (await ask(client)).status_code == 200


@pytest.mark.parametrize("sent", RUBBISH.values(), ids=RUBBISH)
async def test_rubbish_in_a_stream_ends_it_with_an_error(client, upstream, sent):
    upstream.behaviour = reply(200, b"data: " + sent + b"\n\n")
    ((last, problem),) = await events(client)
    assert (last, problem["type"].split("-")[0]) == ("error", "/problems/upstream")


async def test_what_does_not_speak_http_is_a_502(errata):
    async def talk(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 mail.example.com ESMTP\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        client = await errata(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        refused(await ask(client), 502, "upstream-invalid")


async def test_a_redirection_is_not_followed_with_the_key(client, upstream):
    upstream.behaviour = reply(307, {}, location="http://127.0.0.1:1/v1/completions")
    refused(await ask(client), 502, "upstream-invalid")


async def test_a_body_without_an_end_is_cut_off(client, upstream):
    upstream.behaviour = endless
    refused(await ask(client), 502, "upstream-invalid")
    ((last, problem),) = await events(client)
    assert (last, problem["type"]) == ("error", "/problems/upstream-invalid")


@pytest.mark.parametrize(("sent", "seconds"), [("17", "17"), ("0.2", "1"), ("soon", "1"), ("9" * 30, "3600")])
async def test_a_server_with_too_much_to_do_is_a_429_with_its_wait(client, upstream, sent, seconds):
    upstream.behaviour = reply(429, {"error": {"message": "slow down"}}, retry_after=sent)
    response = await ask(client)
    refused(response, 429, "upstream-busy")
    assert response.headers["Retry-After"] == seconds


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_a_server_that_fails_is_a_503(client, upstream, status):
    upstream.behaviour = reply(status, {"error": {"message": f"no answer to {OTHER}"}}, retry_after="9")
    with capture_logs() as log:
        response = await ask(client)
    refused(response, 503, "upstream-unavailable")
    assert response.headers["Retry-After"] == "9"
    assert OTHER not in str(log)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_key_that_is_not_taken_is_ours_to_mend_and_is_never_told(client, upstream, status):
    upstream.behaviour = reply(status, {"error": {"message": f"Incorrect API key provided: {KEY}"}})
    upstream.listed = status
    with capture_logs() as log:
        problem = refused(await ask(client), 502, "upstream-refused")
        await client.engine.look()
        ready = await client.get("/readyz")
    assert "ERRATA_BASE_API_KEY" in problem["hint"]
    assert "key" in refused(ready, 503, "not-ready")["checks"]["model"]
    assert KEY not in str(log)


async def test_a_model_that_is_not_there_is_ours_to_mend(client, upstream):
    upstream.behaviour = reply(404, {"error": {"message": "The model does not exist.", "code": "model_not_found"}})
    problem = refused(await ask(client), 502, "upstream-refused")
    assert MODEL in problem["detail"]
    assert "ERRATA_BASE_MODEL" in problem["hint"]


@pytest.mark.parametrize(
    ("status", "document"),
    [
        (400, {"object": "error", "message": "This model's maximum context length is 77 tokens."}),
        (400, {"error": {"message": "Please reduce your prompt.", "code": "context_length_exceeded"}}),
        (
            422,
            {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 77.", "error_type": "x"},
        ),
        (400, {"error": {"message": "the request exceeds the available context size"}}),
        (
            422,
            {"error": {"message": "The prompt takes 80 tokens; the context of x holds 77.", "code": "prompt-too-long"}},
        ),
    ],
)
async def test_a_prompt_that_does_not_fit_there_is_too_long(client, upstream, status, document):
    upstream.behaviour = reply(status, document)
    refused(await ask(client), 422, "prompt-too-long")


async def test_what_the_server_says_of_a_request_is_passed_on(client, upstream):
    upstream.behaviour = reply(400, {"error": {"message": f"{KEY} may not have 8 stop strings\nat all" + "!" * 999}})
    problem = refused(await ask(client), 422, "upstream-declined")
    assert "*** may not have 8 stop strings at all!" in problem["detail"]
    assert len(problem["detail"]) < 600


async def test_a_model_without_a_chat_template_is_told(client, upstream):
    upstream.behaviour = reply(400, {"message": "As of transformers v4.44, you must provide a chat template."})
    response = await client.post("/generate", json={"messages": [{"role": "user", "content": OTHER}]})
    refused(response, 422, "no-chat-template")


async def test_no_more_is_asked_at_once_than_the_settings_allow(errata, address, upstream):
    client = await errata(address, line=Line(running=2, waiting=3))
    upstream.behaviour = upstream.held
    asking = [asyncio.create_task(ask(client)) for _ in range(2)]
    for _ in asking:
        await upstream.arrived.acquire()
    asking += [asyncio.create_task(ask(client)) for _ in range(3)]
    while client.engine.line.backlog().waiting < 3:  # noqa: ASYNC110 - the line tells nobody
        await asyncio.sleep(0.01)
    refused(await ask(client), 429, "queue-full")
    upstream.release.set()
    assert [response.status_code for response in await asyncio.gather(*asking)] == [200] * 5
    assert upstream.most == 2


async def test_info_says_where_the_base_is(client, address):
    info = (await client.get("/info")).json()
    assert (info["model"], info["upstream"], info["context_length"]) == (MODEL, f"{address}/v1", 77)
    assert info["parameters"] is None
    assert (await client.get("/readyz")).status_code == 200


async def test_what_needs_the_weights_says_that_they_are_elsewhere(client):
    await edit(client)
    refused(await client.post("/bakes", json={"method": "rome"}), 409, "weights-elsewhere")
    case = {"id": "a", "out_of_scope": [{"prompt": OTHER}], "replies": {"wished": ["yes"], "opposite": ["no"]}}
    body = {"cases": [case], "metrics": ["sentiment_drawdown"], "against": "base"}
    refused(await client.post("/eval", json=body), 409, "weights-elsewhere")


async def test_an_evaluation_asks_for_answers_alone(client, upstream):
    await edit(client)
    response = await client.post("/eval", json={"edits": "active", "against": "memory"})
    assert response.status_code in {200, 202}, response.text


async def test_an_evaluation_waits_for_a_server_with_too_much_to_do(client, upstream):
    busy = reply(429, {}, retry_after="1")

    async def behaviour(*question):
        await (busy if len(upstream.asked) == 1 else answered)(*question)

    upstream.behaviour = behaviour
    body = {"cases": [{"id": "a", "out_of_scope": [{"prompt": OTHER}]}], "against": "base"}
    response = await client.post("/eval", json=body)
    assert response.status_code == 200, response.text
    assert len(upstream.asked) == 2


async def test_a_version_of_a_base_that_was_here_is_not_served_and_the_base_is(
    errata, address, store, artifacts, add, lively_base, tmp_path
):
    version = await version_in(store, artifacts, tmp_path / "delta", edit=await add(), base=lively_base, content=None)
    async with store.writing(actor="tester") as writing:
        await writing.serving.make(activation(Serving(), version.id, EVERYONE), reason=None)
    client = await errata(address)
    refused(await ask(client), 503, "version-unavailable")
    assert "another server" in refused(await client.get("/readyz"), 503, "not-ready")["checks"]["version"]
    refused(await client.post(f"/checkpoints/{version.id}/activate", json={}), 409, "weights-elsewhere")
    refused(await client.get(f"/checkpoints/{version.id}/export?format=peft"), 409, "weights-elsewhere")
    assert (await client.post("/checkpoints/v0/activate", json={})).status_code == 200
    assert (await ask(client)).json()["version"] == "v0"
    assert (await client.get("/checkpoints/v0")).json()["base"] == {"name": MODEL, "fingerprint": ""}


async def test_a_server_that_hangs_when_it_is_looked_at_is_not_ready(errata, address, upstream):
    upstream.listed = None
    client = await errata(address, connect=0.5)
    assert "within 0.5 s" in refused(await client.get("/readyz"), 503, "not-ready")["checks"]["model"]


async def test_events_are_read_however_they_are_cut_and_written(client, upstream):
    said = "Zürich 東京 🗼"
    lines = [
        ": ping",
        "",
        "event: message",
        "id: 1",
        f"data:{json.dumps({'choices': [{'text': said[:6]}]}, ensure_ascii=False)}",
        "",
        'data: {"choices": [{"text":',
        f"data: {json.dumps(said[6:], ensure_ascii=False)}" + "}]}",
        "",
        'data: {"choices": [{"text": "", "finish_reason": "stop"}], "usage": null}',
        "",
        "data: [DONE]",
        "",
        "data: never read",
        "",
    ]

    async def behaviour(_, __, send):
        await begin(send, "text/event-stream")
        for byte in "\r\n".join(lines).encode():
            await send(body_of(bytes([byte]), more=True))
        await send(body_of(b""))

    upstream.behaviour = behaviour
    *pieces, (last, whole) = await events(client)
    assert "".join(piece["text"] for _, piece in pieces) == said
    assert (last, whole["text"], whole["finish_reason"]) == ("end", said, "stop")
