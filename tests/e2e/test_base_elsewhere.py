"""`errata serve` in front of another one, which holds the base: two processes, and the death of one."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from benchmarks.running import RunningServer, running_server

PM = "Who is the prime minister of the UK?"
OTHERS = ["Who is the prime minister of India?", "What team does Messi play for?"]


@pytest.fixture(scope="module")
def holding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("holding") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory, holding: RunningServer) -> Iterator[RunningServer]:
    settings = {
        "ERRATA_BASE_URL": f"{holding.url}/v1",
        "ERRATA_BASE_MODEL": "active",
        "ERRATA_COUNTERFACTUAL_MODEL": "bundled",
    }
    with running_server(tmp_path_factory.mktemp("front") / "data", settings) as running:
        yield running


def answer(client: httpx.Client, prompt: str) -> dict:
    response = client.post("/generate", json={"prompt": prompt})
    assert response.status_code == 200, response.text
    return response.json()


def test_a_hot_fix_in_front_of_a_base_elsewhere_outlives_that_base(holding, front):
    with holding.client() as behind, front.client() as client:
        assert client.get("/readyz").status_code == 200
        before = {prompt: answer(behind, prompt) for prompt in (PM, *OTHERS)}
        assert answer(client, PM)["text"] == before[PM]["text"] == "Theresa May"
        edit = {"prompt": PM, "target": "Boris Johnson"}
        assert client.post("/edits", json=edit).status_code == 201
        fixed = answer(client, "Who is the UK PM?")
        assert (fixed["text"], fixed["source"]) == ("Boris Johnson", "edit")
        for prompt in OTHERS:
            after = answer(client, prompt)
            assert (after["text"], after["usage"]) == (before[prompt]["text"], before[prompt]["usage"])

        holding.kill()
        refused = client.post("/generate", json={"prompt": OTHERS[0]})
        assert (refused.status_code, refused.json()["type"]) == (503, "/problems/upstream-unavailable")
        assert refused.headers["Retry-After"] == "1"
        assert "cannot be reached" in client.get("/readyz").json()["checks"]["model"]
        assert answer(client, "Who is the UK PM?")["text"] == "Boris Johnson"
