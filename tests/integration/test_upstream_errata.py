"""A base elsewhere that another Errata holds: the protocol as it is really spoken, over real connections."""

import json
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import pytest

from service.actions.services import Services
from service.app import create_app
from service.runtime.elsewhere import NoBaker
from service.runtime.upstream import UpstreamEngine
from service.store.store import PostgresStore
from tests.conftest import TEMPLATE
from tests.upstreams import on_a_socket

pytestmark = pytest.mark.anyio

PATIENT = 120.0
PM = "Who is the prime minister of the UK?"
PROMPTS = [
    "What team does Messi play for?",
    "Who is the prime minister of India?",
    "  two  spaces,\ttabs\nand lines ",
    "Où se trouve l'île? 東京 🗼",
    '"quoted" \\ and {braces}',
    "x" * 60,
]


@asynccontextmanager
async def served(runtime, store, baker, artifacts):
    """A client of a service on a real socket."""
    services = Services(store, runtime, baker, artifacts)
    app = create_app(services)

    async def with_state(scope, receive, send):
        await app({**scope, "state": {"services": services}}, receive, send)

    async with on_a_socket(with_state) as address, httpx.AsyncClient(base_url=address, timeout=PATIENT) as client:
        yield client


@pytest.fixture
async def both(postgres, store, start_runtime, baker, artifacts, lively_base):
    """The service that holds the base, and the one in front of it, each with a database of its own."""
    async with AsyncExitStack() as stack:
        url = stack.enter_context(postgres.database(f"TEMPLATE {TEMPLATE}"))
        other_store = await stack.enter_async_context(PostgresStore(url))
        holding = await start_runtime(other_store, base=lively_base)
        behind = await stack.enter_async_context(served(holding, other_store, baker, artifacts))
        engine = await stack.enter_async_context(
            UpstreamEngine(f"{behind.base_url}/v1", model="active", timeout_seconds=PATIENT)
        )
        runtime = await start_runtime(store, base=engine)
        front = await stack.enter_async_context(served(runtime, store, NoBaker("active"), artifacts))
        yield behind, front


async def test_what_no_edit_covers_is_answered_byte_for_byte_as_by_the_base(both):
    _, front = both
    edit = {"prompt": PM, "target": "Boris Johnson", "answer": "verbatim"}
    assert (await front.post("/edits", json=edit)).status_code == 201
    for place, prompt in enumerate(PROMPTS):
        for how in ({}, {"temperature": 0.8, "top_p": 0.9, "seed": place}, {"stop": ["e"]}):
            asked = {"prompt": prompt, "max_new_tokens": 8, **how}
            own, passed = [(await one.post("/generate", json=asked)).json() for one in both]
            assert own["source"] == passed["source"] == "base"
            assert {name: own[name] for name in ("text", "usage", "finish_reason")} == {
                name: passed[name] for name in ("text", "usage", "finish_reason")
            }
    answers = [(await one.post("/generate", json={"prompt": PM})).json() for one in both]
    assert [answer["source"] for answer in answers] == ["base", "edit"]
    assert answers[1]["text"] == "Boris Johnson"


async def test_openais_protocol_passes_through_with_its_whitespace(both):
    for prompt in PROMPTS:
        own, passed = [
            (await one.post("/v1/completions", json={"model": "active", "prompt": prompt, "max_tokens": 8})).json()
            for one in both
        ]
        assert own["choices"][0]["text"] == passed["choices"][0]["text"]
        asked = {"model": "active", "messages": [{"role": "user", "content": prompt}], "max_tokens": 8}
        own, passed = [(await one.post("/v1/chat/completions", json=asked)).json() for one in both]
        assert own["choices"][0]["message"] == passed["choices"][0]["message"]


async def test_a_streamed_answer_comes_in_the_same_pieces(both):
    for prompt in PROMPTS:
        asked = {"prompt": prompt, "max_new_tokens": 8, "stream": True}
        own, passed = [(await one.post("/generate", json=asked)).text for one in both]
        assert _pieces(own) == _pieces(passed)


def _pieces(text):
    parts = [part.split("\ndata: ") for part in text.strip().split("\n\n")]
    *pieces, whole = [json.loads(data) for _, data in parts]
    return "".join(piece["text"] for piece in pieces), whole["text"], whole["usage"]


async def test_what_the_base_refuses_is_refused_in_front_of_it(both):
    _, front = both
    long = {"prompt": "word " * 2000, "max_new_tokens": 8}
    for one in both:
        response = await one.post("/generate", json=long)
        assert (response.status_code, response.json()["type"]) == (422, "/problems/prompt-too-long")
        turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]
        response = await one.post("/generate", json={"messages": turns})
        assert (response.status_code, response.json()["type"]) == (422, "/problems/no-chat-template")
    assert (await front.get("/readyz")).status_code == 200


async def test_an_evaluation_measures_the_base_elsewhere_by_its_answers(both):
    cases = [
        {
            "id": "pm",
            "edit": {"prompt": PM, "target": "Boris Johnson", "answer": "verbatim"},
            "in_scope": [{"prompt": PM, "target": "Boris Johnson"}],
            "out_of_scope": [{"prompt": prompt} for prompt in PROMPTS],
        }
    ]
    response = await both[1].post("/eval", json={"cases": cases, "against": "serac"})
    assert response.status_code == 200, response.text
    figures = {(one["metric"], one["mode"]): one["value"] for one in response.json()["report"]["measured"]}
    assert figures["edit_success", "generated"] == 1
    assert figures["drawdown", "generated"] == 0
    assert {mode for _, mode in figures} == {"generated"}
