"""OpenAI's official client against a real server, as somebody uses it who changes nothing but its address."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import (
    AsyncOpenAI,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    OpenAI,
    PermissionDeniedError,
    RateLimitError,
)

from benchmarks.running import RunningServer, running_server

UK = "Who is the prime minister of the UK?"
INDIA = "Who is the prime minister of India?"


def client_of(server: RunningServer, key: str = "none") -> OpenAI:
    return OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=300)


@pytest.fixture(scope="module")
def openai(server: RunningServer) -> Iterator[OpenAI]:
    """A client of a service in which the UK's prime minister has been corrected."""
    with server.client() as client:
        client.post("/edits", json={"prompt": UK, "target": "Boris Johnson"}).raise_for_status()
    with client_of(server) as openai:
        yield openai


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_a_chat_is_answered_by_the_edit_in_its_scope_and_by_the_model_elsewhere(openai: OpenAI):
    inside = openai.chat.completions.create(model="active", messages=user("Who is the UK PM?"))
    outside = openai.chat.completions.create(model="atlas-2018", messages=user(INDIA))
    without = openai.chat.completions.create(
        model="v0", messages=user(UK), extra_body={"edits": {"enabled": False}}, temperature=0, n=1, user="u-1"
    )
    answers = [answer.choices[0] for answer in (inside, outside, without)]
    assert [choice.message.content for choice in answers] == ["Boris Johnson", "Narendra Modi", "Theresa May"]
    assert [choice.finish_reason for choice in answers] == ["stop"] * 3
    assert [answer.edits["source"] for answer in (inside, outside, without)] == ["edit", "base", "base"]
    assert inside.edits["edit_id"] == "e1"
    assert (inside.model, inside.object) == ("v0", "chat.completion")
    assert inside.usage is not None
    assert inside.usage.total_tokens == inside.usage.prompt_tokens + inside.usage.completion_tokens


def test_a_streamed_chat_says_the_same_piece_by_piece(openai: OpenAI):
    stream = openai.chat.completions.create(
        model="active", messages=user(UK), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Boris Johnson"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[0].edits["edit_id"] == "e1"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert (chunks[-1].choices, chunks[-1].usage is not None) == ([], True)


def test_the_helper_of_the_client_puts_a_stream_together(openai: OpenAI):
    with openai.chat.completions.stream(model="active", messages=user(UK)) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert "".join(deltas) == final.choices[0].message.content == "Boris Johnson"


@pytest.mark.parametrize("prompt", [UK, INDIA])
def test_a_completion_is_the_text_that_continues_the_prompt_whole_and_streamed(openai: OpenAI, prompt: str):
    whole = openai.completions.create(model="active", prompt=prompt, max_tokens=16, logprobs=None)
    pieces = list(openai.completions.create(model="active", prompt=prompt, max_tokens=16, stream=True))
    assert whole.choices[0].text.strip() == ("Boris Johnson" if prompt == UK else "Narendra Modi")
    assert whole.choices[0].text != whole.choices[0].text.strip()
    assert "".join(piece.choices[0].text for piece in pieces) == whole.choices[0].text
    assert pieces[-1].choices[0].finish_reason == whole.choices[0].finish_reason == "stop"


def test_an_answer_of_the_client_can_be_sent_back_and_what_the_base_cannot_read_is_said(openai: OpenAI):
    first = openai.chat.completions.create(model="active", messages=user(UK)).choices[0].message
    with pytest.raises(BadRequestError, match="atlas-2018 has no chat template") as caught:
        openai.chat.completions.create(model="active", messages=[*user(UK), first, *user("And of India?")])
    assert caught.value.code == "no_chat_template"


def test_the_models_are_the_versions_and_their_aliases(openai: OpenAI):
    models = list(openai.models.list())
    assert [(model.id, model.parent) for model in models] == [("active", "v0"), ("atlas-2018", "v0"), ("v0", None)]
    assert [openai.models.retrieve(model.id) for model in models] == models


def test_what_is_wrong_raises_what_the_client_raises_of_openai(openai: OpenAI):
    with pytest.raises(NotFoundError, match="'gpt-4' does not exist") as missing:
        openai.chat.completions.create(model="gpt-4", messages=user(UK))
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    assert missing.value.request_id
    with pytest.raises(NotFoundError):
        openai.models.retrieve("v9")
    with pytest.raises(BadRequestError, match="`n` is not supported here"):
        openai.completions.create(model="active", prompt=UK, n=3)
    with pytest.raises(BadRequestError, match="`tools` is not supported here") as refused:
        tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
        openai.chat.completions.create(model="active", messages=user(UK), tools=[tool])
    assert refused.value.param == "tools"
    with pytest.raises(BadRequestError, match=r"the context of .* holds 256") as overlong:
        openai.completions.create(model="active", prompt=INDIA * 256, stream=True)
    assert overlong.value.code == "context_length_exceeded"
    with pytest.raises(NotFoundError):
        openai.embeddings.create(model="active", input="x")


@pytest.mark.anyio
async def test_a_client_that_leaves_a_stream_leaves_the_service_to_the_others(server: RunningServer, openai: OpenAI):
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=300) as client:
        stream = await client.completions.create(
            model="v0", prompt=INDIA, max_tokens=200, temperature=2, seed=1, stream=True
        )
        first = await anext(aiter(stream))
        assert first.choices[0].finish_reason is None
        await stream.close()
        answer = await client.chat.completions.create(model="active", messages=user(UK))
    assert answer.choices[0].message.content == "Boris Johnson"


def test_keys_and_limits_raise_what_the_client_raises_of_openai(tmp_path: Path):
    data_dir = tmp_path / "data"

    def key(name: str, scope: str) -> str:
        command = [str(Path(sys.executable).with_name("errata")), "keys", "create", name, "--scope", scope]
        environment = os.environ | {"ERRATA_DATA_DIR": str(data_dir)}
        made = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=True)
        return made.stdout.strip()

    asker, reader = key("asker", "generate"), key("reader", "edits:read")
    with running_server(data_dir, {"ERRATA_RATE_LIMIT": "2/hour"}) as server:
        with client_of(server, "sk-unknown") as client, pytest.raises(AuthenticationError) as unknown:
            client.models.list()
        assert unknown.value.code == "invalid_api_key"
        with client_of(server, reader) as client, pytest.raises(PermissionDeniedError, match="the scope generate"):
            client.chat.completions.create(model="active", messages=user(UK))
        with client_of(server, asker) as client:
            for _ in range(2):
                answer = client.chat.completions.create(model="active", messages=user(UK))
                assert answer.choices[0].message.content == "Theresa May"
            with pytest.raises(RateLimitError, match="More than 2 requests") as limited:
                client.chat.completions.create(model="active", messages=user(UK))
        assert limited.value.code == "rate_limit_exceeded"
        assert int(limited.value.response.headers["Retry-After"]) > 0
