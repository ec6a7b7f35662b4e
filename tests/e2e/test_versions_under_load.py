"""Versions change under steady load on two replicas: nothing is dropped, and every answer is its version's."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import httpx
import pytest
import torch

import demo
from benchmarks.forked import forked_server
from editors.delta import Delta, Dense
from editors.delta_files import save
from tests.bakes import PROMPT, TARGET, version_in

pytestmark = pytest.mark.anyio

CLIENTS = 32
PROMPTS = [PROMPT, *(f"{word} is it now?" for word in ("What", "Who", "Where", "How", "Why", "When", "Which"))]
SITE = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture
async def version(store, artifacts, add, lively_base, tmp_path):
    """A version whose weights say something else to every prompt."""
    edit = await add(PROMPT, TARGET)
    noise = torch.randn(lively_base.model.get_parameter(SITE).shape, generator=torch.Generator().manual_seed(0))
    file = tmp_path / "noise"
    save(Delta(base=lively_base.fingerprint, changes={SITE: Dense(noise)}), file)
    return await version_in(
        store, artifacts, tmp_path / "delta", edit=edit, base=lively_base, content=file.read_bytes()
    )


@pytest.fixture
async def replicas(version, database_url, model_folder, tmp_path):
    """A client of each of two servers."""
    settings = {
        "ERRATA_DATABASE_URL": database_url,
        "ERRATA_ARTIFACTS_URL": str(tmp_path / "artifacts"),
        "ERRATA_BASE_MODEL": str(model_folder),
        "ERRATA_SCOPE_CLASSIFIER": str(demo.SIMILARITY),
    }
    async with AsyncExitStack() as stack:
        servers = [stack.enter_context(forked_server(tmp_path / name, settings)) for name in ("one", "other")]
        yield [
            await stack.enter_async_context(httpx.AsyncClient(base_url=server.url, timeout=120)) for server in servers
        ]


async def ask(client, number, **more):
    body = {"prompt": PROMPTS[number % len(PROMPTS)], "max_new_tokens": 16, **more}
    response = await client.post("/generate", json=body, headers={"X-Session-Id": str(number)})
    assert response.status_code == 200, response.text
    return response.json()


async def test_under_load_activation_and_rollback_drop_nothing_and_every_answer_is_its_versions(replicas):
    expected = {
        version: [(await ask(replicas[0], n, version=version, edits=False))["text"] for n in range(len(PROMPTS))]
        for version in ("v0", "v1")
    }
    assert not set(expected["v0"]) & set(expected["v1"])
    done, answered = asyncio.Event(), []

    async def keep_asking(number):
        while not done.is_set():
            answered.append((number, await ask(replicas[number % 2], number, edits=number % 4 == 0)))

    async def move(path, **body):
        response = await replicas[len(served) % 2].post(f"/checkpoints/{path}", json=body)
        assert response.status_code == 200, response.text
        state = response.json()
        served[state["revision"]] = {state["active"], state["canary"] or state["active"]}
        await asyncio.sleep(0.2)

    served = {0: {"v0"}}
    async with asyncio.TaskGroup() as tasks:
        for number in range(CLIENTS):
            tasks.create_task(keep_asking(number))
        for _ in range(3):
            await move("v1/activate")
            await move("rollback")
            await move("v1/activate", percent=50)
            await move("v1/activate", percent=100)
            await move("v0/activate")
        done.set()

    assert {(answer["version"], number % 2) for number, answer in answered} == {
        (version, replica) for version in expected for replica in (0, 1)
    }
    for number, answer in answered:
        standing = served[max(revision for revision in served if revision <= answer["revision"])]
        assert answer["version"] in standing
        if answer["source"] == "edit":
            assert (answer["version"], number % len(PROMPTS)) == ("v0", 0)  # the version has that edit in its weights
        else:
            assert answer["text"] == expected[answer["version"]][number % len(PROMPTS)]
