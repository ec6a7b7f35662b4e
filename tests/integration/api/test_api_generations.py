import json
from dataclasses import replace

import pytest

from service.errors import EngineFailed, QueueFull

pytestmark = pytest.mark.anyio


async def test_the_base_answers_when_there_is_no_edit(client):
    response = await client.post("/generate", json={"prompt": "one two three"})
    assert response.status_code == 200
    assert response.json() == {
        "text": "three two one",
        "source": "base",
        "edit_id": None,
        "beta": None,
        "version": "v0",
        "revision": 0,
        "usage": {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6},
        "finish_reason": "stop",
    }


async def test_an_edit_answers_in_its_scope_alone(client, post):
    await post(prompt="Who leads the UK?", target="Boris Johnson", scope={"in_scope": ["UK PM?"]})
    inside = (await client.post("/generate", json={"prompt": "uk pm"})).json()
    outside = (await client.post("/generate", json={"prompt": "Who leads France?"})).json()
    assert (inside["source"], inside["edit_id"], inside["beta"]) == ("edit", "e1", 1.0)
    assert (outside["source"], outside["edit_id"], outside["beta"]) == ("base", None, 0.0)


async def test_edits_can_be_left_out_of_one_answer(client, post):
    await post(prompt="Who leads the UK?", target="Boris Johnson")
    answer = (await client.post("/generate", json={"prompt": "Who leads the UK?", "edits": False})).json()
    assert (answer["source"], answer["beta"]) == ("base", None)


async def test_an_answer_cut_short_says_so(client):
    answer = (await client.post("/generate", json={"prompt": "one two three", "max_new_tokens": 2})).json()
    assert (answer["text"], answer["finish_reason"]) == ("three two", "length")


async def test_every_field_reaches_the_runtime(client, services, monkeypatch):
    asked = []
    generate = services.runtime.generate

    async def listening(request):
        asked.append(request)
        return await generate(request)

    monkeypatch.setattr(services.runtime, "generate", listening)
    body = {
        "prompt": "a b",
        "max_new_tokens": 5,
        "temperature": 1,
        "top_p": 0.5,
        "stop": ["\n", "END"],
        "seed": 2**63 - 1,
        "stream": False,
        "version": "v0",
        "edits": False,
        "min_revision": 0,
    }
    assert (await client.post("/generate", json=body)).status_code == 200
    assert (await client.post("/generate", json={"prompt": "a", "stop": "\n"})).status_code == 200
    first, second = asked
    assert (first.prompt, first.messages, first.version, first.edits, first.min_revision) == ("a b", (), "v0", False, 0)
    sampling = first.sampling
    assert (sampling.max_new_tokens, sampling.temperature, sampling.top_p) == (5, 1.0, 0.5)
    assert (sampling.stop, sampling.seed) == (("\n", "END"), 2**63 - 1)
    assert second.sampling.stop == ("\n",)


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        ({"prompt": "a", "version": "v7"}, 404, "version-not-found"),
        ({"prompt": "word " * 60}, 422, "prompt-too-long"),
        ({"messages": [{"role": "user", "content": "Hello"}] * 2}, 422, "no-chat-template"),
        ({"messages": [{"role": "system", "content": "Be brief."}]}, 422, "no-chat-template"),
        ({"prompt": "a", "min_revision": 9}, 503, "not-caught-up"),
    ],
)
async def test_what_the_runtime_refuses_is_a_problem(client, body, status, slug):
    response = await client.post("/generate", json=body)
    assert (response.status_code, response.json()["type"]) == (status, f"/problems/{slug}")
    assert response.json()["hint"]


async def test_a_match_says_which_edit_would_answer_and_why(client, post):
    assert (await client.post("/edits/match", json={"prompts": ["x"]})).json() == {
        "matches": [{"edit_id": None, "beta": None, "threshold": None, "decision": "no_edits", "candidates": []}],
        "revision": 0,
        "version": "v0",
    }
    await post(prompt="Who leads the UK?", target="Boris Johnson")
    found = (await client.post("/edits/match", json={"prompts": ["Who leads France?", "who leads the uk"]})).json()
    candidate = {
        "edit_id": "e1",
        "beta": 1.0,
        "threshold": 0.5,
        "similarity": 1.0,
        "matched_text": "Who leads the UK?",
        "excluded": False,
    }
    assert found["revision"] == 1
    assert [one["decision"] for one in found["matches"]] == ["below_threshold", "in_scope"]
    assert found["matches"][0]["edit_id"] is None
    assert found["matches"][1] == {
        "edit_id": "e1",
        "beta": 1.0,
        "threshold": 0.5,
        "decision": "in_scope",
        "candidates": [candidate],
    }


def events_of(text):
    """The events of a stream: their kinds, and their data."""
    blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in text.split("\n\n") if block]
    return [(block["event"], json.loads(block["data"])) for block in blocks]


async def test_a_stream_gives_the_text_in_pieces_and_then_the_whole_answer(client, post):
    await post(prompt="Who leads the UK?", target="Boris Johnson")
    for prompt in ("Who leads the UK?", "one two three"):
        expected = (await client.post("/generate", json={"prompt": prompt})).json()
        response = await client.post("/generate", json={"prompt": prompt, "stream": True})
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        *pieces, end = events_of(response.text)
        assert "".join(data["text"] for kind, data in pieces if kind == "text") == expected["text"]
        assert len(pieces) > 1
        assert end == ("end", expected)


async def test_what_is_wrong_from_the_beginning_is_no_stream(client):
    response = await client.post("/generate", json={"prompt": "word " * 100, "stream": True})
    assert response.status_code == 422
    assert response.json()["type"] == "/problems/prompt-too-long"


async def test_an_error_in_the_middle_of_a_stream_is_its_last_event(client, services, monkeypatch):
    stream = services.runtime.stream

    async def breaking(request):
        found = await stream(request)

        async def parts():
            yield "three"
            raise EngineFailed("The model failed.")

        return replace(found, parts=parts())

    monkeypatch.setattr(services.runtime, "stream", breaking)
    sent = {"X-Request-Id": "mine"}
    response = await client.post("/generate", json={"prompt": "one two three", "stream": True}, headers=sent)
    (first, piece), (last, problem) = events_of(response.text)
    assert (first, piece, last) == ("text", {"text": "three"}, "error")
    assert (problem["type"], problem["status"], problem["request_id"]) == ("/problems/engine-failed", 503, "mine")


@pytest.mark.parametrize("error", [QueueFull("256 requests wait."), EngineFailed("The model failed.")])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_without_room_or_that_failed_says_when_to_come_back(client, services, monkeypatch, error, stream):
    async def refuse(request):
        raise error

    monkeypatch.setattr(services.runtime, "stream" if stream else "generate", refuse)
    response = await client.post("/generate", json={"prompt": "one", "stream": stream})
    assert (response.status_code, response.json()["type"]) == (error.status, f"/problems/{error.slug}")
    assert int(response.headers["Retry-After"]) > 0
