"""Chats by OpenAI's API with a real model: its own chat template writes them, and its context bounds the answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from editors.model.loading import BaseModel
from service.actions.services import Services
from service.domain.generations import Sampling
from service.runtime.engine import TransformersEngine
from tests.fakes import client_of
from tests.runtimes import StartRuntime

pytestmark = pytest.mark.anyio

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
TURNS = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": "Who is the UK PM?"},
    {"role": "assistant", "content": "Theresa May"},
    {"role": "user", "content": [{"type": "text", "text": "And of"}, {"type": "text", "text": "France?"}]},
]
WRITTEN = "system: Be brief.\nuser: Who is the UK PM?\nassistant: Theresa May\nuser: And of\nFrance?\nassistant:"


@pytest.fixture
async def client(
    store, start_runtime: StartRuntime, lively_base: BaseModel, artifacts, baker, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service whose base converses."""
    monkeypatch.setattr(lively_base.tokenizer, "chat_template", TEMPLATE)
    runtime = await start_runtime(store, base=lively_base)
    async with client_of(Services(store, runtime, baker, artifacts)) as client:
        yield client


async def ask(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await client.post("/v1/chat/completions", json={"messages": TURNS} | body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def test_the_bases_chat_template_writes_the_conversation(client: httpx.AsyncClient, lively_base: BaseModel):
    expected = TransformersEngine(lively_base).complete(WRITTEN, Sampling(max_new_tokens=12), rendered=True)
    answer = await ask(client, max_completion_tokens=12)
    assert answer["choices"][0]["message"]["content"] == expected.text.strip()
    assert answer["usage"]["prompt_tokens"] == expected.usage.prompt_tokens


async def test_a_chat_without_a_limit_ends_where_the_context_does(client: httpx.AsyncClient, lively_base: BaseModel):
    answer = await ask(client)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] == lively_base.context_length
    assert (await ask(client, max_tokens=4096))["choices"] == answer["choices"]
    endless = [{"role": "user", "content": "word " * lively_base.context_length}]
    refused = await client.post("/v1/chat/completions", json={"messages": endless, "max_tokens": 1})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length_exceeded")


async def test_a_streamed_chat_is_the_whole_one_and_a_completion_keeps_the_whitespace_around_it(
    client: httpx.AsyncClient, lively_base: BaseModel
):
    sampled = {"temperature": 1.5, "seed": 3}
    whole = await ask(client, **sampled)
    streamed = await client.post("/v1/chat/completions", json={"messages": TURNS, "stream": True} | sampled)
    chunks = [json.loads(line.removeprefix("data: ")) for line in streamed.text.split("\n\n")[:-2]]
    said = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert said == whole["choices"][0]["message"]["content"] == said.strip()

    expected = TransformersEngine(lively_base).complete("Who is", Sampling(max_new_tokens=16))
    body = {"prompt": "Who is"}
    completion = (await client.post("/v1/completions", json=body)).json()
    assert completion["choices"][0]["text"] == expected.text
