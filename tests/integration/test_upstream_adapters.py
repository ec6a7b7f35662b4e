"""Versions on a base elsewhere: LoRA adapters, on a server that speaks of them as vLLM does and holds a real model."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
import torch

from editors.delta import Change, Delta, Dense, LowRank, install
from editors.delta_files import save
from service.actions.services import Services
from service.domain.bakes import SiteChange
from service.domain.generations import Sampling
from service.domain.versions import BakedEdit, Base, NewVersion
from service.runtime.adapters import Adapters
from service.runtime.elsewhere import NoBaker
from service.runtime.engine import TransformersEngine
from service.runtime.upstream import UpstreamEngine
from service.store.jobs import BAKE, EVALUATE
from service.wiring import jobs
from tests.adapters import AdapterServer
from tests.bakes import report
from tests.fakes import client_of
from tests.upstreams import MODEL, on_a_socket

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # PEFT asks for it
]

PROMPT = "What team does Messi play for?"
SITE = "model.layers.1.mlp.down_proj.weight"
PATIENT = 120.0


@pytest.fixture
def server(lively_base):
    return AdapterServer(lively_base)


@pytest.fixture
async def address(server):
    async with on_a_socket(server) as url:
        yield url


@pytest.fixture
async def errata(store, start_runtime, artifacts, address, lively_base, tmp_path):
    """Starts a service in front of the server, and gives a client of it."""
    async with AsyncExitStack() as stack:

        async def start(folder=tmp_path / "adapters", fingerprint=lively_base.fingerprint):
            engine = await stack.enter_async_context(
                UpstreamEngine(f"{address}/v1", model=MODEL, timeout_seconds=PATIENT, connect_seconds=PATIENT)
            )
            adapters = Adapters(engine, folder, fingerprint)
            runtime = await start_runtime(store, base=engine, adapters=adapters)
            client = await stack.enter_async_context(
                client_of(Services(store, runtime, NoBaker(MODEL, fingerprint), artifacts))
            )
            client.adapters = adapters
            return client

        yield start


@pytest.fixture
async def client(errata):
    return await errata()


@pytest.fixture
def bake(store, artifacts, add, lively_base, tmp_path):
    """Adds a version as a bake on a machine with the weights would; its delta, beside it."""

    async def bake(seed=0, *, dense=False, base=None):
        draw = torch.Generator().manual_seed(seed)
        out, inner = lively_base.model.get_parameter(SITE).shape
        change: Change = LowRank(torch.randn(out, 2, generator=draw), torch.randn(2, inner, generator=draw))
        if dense:
            change = Dense(change.product())
        made_for = base or Base(name=lively_base.name, fingerprint=lively_base.fingerprint)
        delta = Delta(base=made_for.fingerprint, changes={SITE: change})
        file = tmp_path / "delta"
        save(delta, file)
        artifact = await artifacts.describe(file)
        await artifacts.put(file, artifact)
        edit = await add(prompt=f"What is {seed}?")
        sites = (SiteChange(site=SITE, rank=None if dense else 2, relative_norm=1.0),)
        async with store.writing(actor="ann") as writing:
            version = await writing.versions.add(
                NewVersion(
                    parent="v0",
                    base=made_for,
                    edits=(BakedEdit(id=edit.id, revision=edit.revision),),
                    method="rome",
                    config={},
                    report=replace(report(), sites=sites),
                    artifact=artifact,
                )
            )
        return version, delta

    return bake


def said(base, delta=None, prompt=PROMPT):
    """What a model that is loaded here answers, with a delta in its weights."""
    model = base if delta is None else replace(base, model=install(base, delta))
    return TransformersEngine(model).complete(prompt, Sampling(max_new_tokens=12)).text.strip()


async def ask(client, **more):
    response = await client.post("/generate", json={"prompt": PROMPT, "max_new_tokens": 12, **more})
    assert response.status_code == 200, response.text
    return response.json()


async def streamed(client):
    response = await client.post("/generate", json={"prompt": PROMPT, "max_new_tokens": 12, "stream": True})
    assert response.status_code == 200, response.text
    (last,) = (part for part in response.text.split("\n\n") if part.startswith("event: end"))
    return json.loads(last.removeprefix("event: end\ndata: "))["text"]


async def activate(client, version_id, **body):
    return await client.post(f"/checkpoints/{version_id}/activate", json=body)


def refused(response, status, slug):
    problem = response.json()
    assert (response.status_code, problem["type"]) == (status, f"/problems/{slug}"), problem
    assert problem["hint"]
    return problem


async def listed(client):
    return [model["id"] for model in (await client.get("/v1/models")).json()["data"]]


async def test_an_activated_version_answers_from_the_server_as_where_the_weights_are(
    client, server, bake, lively_base, tmp_path
):
    version, delta = await bake()
    base, edited = said(lively_base), said(lively_base, delta)
    assert base != edited
    assert (await ask(client))["text"] == base
    assert (await activate(client, version.id)).status_code == 200
    answer = await ask(client)
    assert (answer["text"], answer["version"], answer["source"]) == (edited, "v1", "base")
    name = f"v1-{version.artifact.digest[:16]}"
    assert server.loads() == [name]
    assert {path.name for path in (tmp_path / "adapters" / name).iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert [path.name for path in (tmp_path / "adapters").iterdir()] == [name]
    assert (await ask(client, version="v0"))["text"] == base
    completion = await client.post("/v1/completions", json={"model": "v1", "prompt": PROMPT, "max_tokens": 12})
    assert completion.json()["choices"][0]["text"].strip() == edited
    assert await streamed(client) == edited
    assert await listed(client) == ["active", MODEL, "v1", "v0"]


async def test_a_canary_a_version_asked_for_by_name_and_a_rollback_each_answer_with_their_adapter(
    client, server, bake, lively_base
):
    (first, one), (second, other) = [await bake(seed) for seed in (1, 2)]
    texts = {"v0": said(lively_base), "v1": said(lively_base, one), "v2": said(lively_base, other)}
    assert len(set(texts.values())) == 3
    assert (await activate(client, first.id)).status_code == 200
    assert (await activate(client, second.id, percent=50)).status_code == 200
    answered = {}
    for user in range(24):
        body = {"prompt": PROMPT, "max_new_tokens": 12}
        answer = (await client.post("/generate", json=body, headers={"X-Session-Id": f"user {user}"})).json()
        answered.setdefault(answer["version"], set()).add(answer["text"])
    assert answered == {version: {texts[version]} for version in ("v1", "v2")}
    for version, text in texts.items():
        assert (await ask(client, version=version))["text"] == text
    for active in ("v1", "v0"):
        assert (await client.post("/checkpoints/rollback", json={})).json()["active"] == active
    assert (await ask(client))["text"] == texts["v0"]
    assert len(server.loads()) == 2


async def test_a_version_without_low_rank_is_refused_and_what_was_active_stays(client, server, bake, lively_base):
    dense, _ = await bake(dense=True)
    problem = refused(await activate(client, dense.id), 409, "no-adapter")
    assert SITE in problem["detail"]
    refused(await client.post("/generate", json={"prompt": PROMPT, "version": dense.id}), 409, "no-adapter")
    assert (await ask(client))["version"] == "v0"
    assert await listed(client) == ["active", MODEL, "v0"]
    assert server.loads() == []


async def test_a_version_of_other_weights_than_the_operator_names_is_refused(client, errata, bake):
    version, _ = await bake(base=Base(name="other", fingerprint="f" * 64))
    problem = refused(await activate(client, version.id), 409, "base-mismatch")
    assert "ERRATA_BASE_FINGERPRINT" in problem["detail"]
    assert await listed(client) == ["active", MODEL, "v0"]
    assert await listed(await errata(fingerprint="f" * 64)) == ["active", MODEL, "v1", "v0"]


@pytest.mark.parametrize(
    ("without", "words"), [("lora", "LoRA is not enabled"), ("runtime", "404 at /v1/load_lora_adapter")]
)
async def test_a_server_that_loads_no_adapters_is_an_error_that_says_so_and_what_was_active_stays(
    client, server, bake, without, words
):
    version, _ = await bake()
    setattr(server, without, False)
    problem = refused(await activate(client, version.id), 502, "adapter-refused")
    assert words in problem["detail"]
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in problem["hint"]
    refused(await client.post("/generate", json={"prompt": PROMPT, "version": version.id}), 502, "adapter-refused")
    assert (await ask(client))["version"] == "v0"
    setattr(server, without, True)
    assert (await activate(client, version.id)).status_code == 200
    assert (await ask(client))["version"] == "v1"


async def test_a_server_that_does_not_see_the_folder_says_so(errata, bake, server, tmp_path, monkeypatch):
    version, _ = await bake()
    client = await errata()
    monkeypatch.setattr(server, "_load", lambda asked: (404, f"No adapter found for {asked['lora_path']}"))
    problem = refused(await activate(client, version.id), 502, "adapter-refused")
    assert f"No adapter found for {tmp_path / 'adapters'}/v1-{version.artifact.digest[:16]}" in problem["detail"]


async def test_a_server_that_has_been_started_anew_is_given_its_adapters_again(client, server, bake, lively_base):
    version, delta = await bake()
    await activate(client, version.id)
    server.loaded.clear()
    assert (await ask(client))["text"] == said(lively_base, delta)
    server.loaded.clear()
    assert await streamed(client) == said(lively_base, delta)
    assert len(server.loads()) == 3


async def test_a_service_that_starts_says_when_its_version_cannot_be_served_and_is_well_once_it_can(
    client, errata, server, bake, lively_base
):
    version, delta = await bake()
    await activate(client, version.id)
    server.loaded.clear()
    server.lora = False
    later = await errata()
    refused(await later.post("/generate", json={"prompt": PROMPT}), 503, "version-unavailable")
    assert "LoRA is not enabled" in refused(await later.get("/readyz"), 503, "not-ready")["checks"]["version"]
    server.lora = True
    assert (await ask(await errata()))["text"] == said(lively_base, delta)


async def test_two_services_in_front_of_one_server_share_an_adapter(client, errata, server, bake, lively_base):
    version, delta = await bake()
    other = await errata()
    for one in (client, other):
        assert (await ask(one, version=version.id))["text"] == said(lively_base, delta)
    assert len(set(server.loads())) == len(server.loaded) == 1


async def test_the_server_is_let_forget_what_nobody_asks_for_and_given_it_again_when_somebody_does(
    client, server, bake, lively_base
):
    made = [await bake(seed) for seed in range(4)]
    for version, delta in (*made, *made):
        assert (await ask(client, version=version.id))["text"] == said(lively_base, delta)
    unloads = [path for path, _ in server.asked if path == "/unload_lora_adapter"]
    assert unloads


async def test_a_service_without_the_weights_leaves_bakes_in_the_queue_for_one_that_has_them(
    store, start_runtime, artifacts, baker, lively_base
):
    runtime = await start_runtime(store, base=lively_base)
    assert set(jobs(Services(store, runtime, baker, artifacts))) == {BAKE, EVALUATE}
    assert set(jobs(Services(store, runtime, NoBaker(MODEL), artifacts))) == {EVALUATE}


async def test_the_folder_must_be_one_that_can_be_written(errata, bake, tmp_path):
    version, _ = await bake()
    (tmp_path / "file").write_text("x")
    client = await errata(folder=tmp_path / "file" / "adapters")
    problem = refused(await activate(client, version.id), 503, "artifacts-unavailable")
    assert "ERRATA_ADAPTERS" in problem["hint"]
