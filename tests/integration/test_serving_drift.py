"""Ten changes of the drift set on the bundled model: served from the memory, then the weights, then rolled back."""

from __future__ import annotations

from contextlib import closing

import pytest

import demo
from benchmarks.cases import apart
from demo.suites import SUITES, drift, facts
from editors.evaluation.cases import EDIT
from editors.model.loading import load_base, load_counterfactual, tensor_hash
from editors.serac.cross_encoder import load_scope
from editors.surgery import covariance
from service.actions import bakes
from service.actions.services import Services
from service.runtime.baker import ModelBaker
from service.runtime.live_memory import LiveMemory
from service.runtime.runtime import ModelRuntime
from tests.fakes import client_of

pytestmark = pytest.mark.anyio

EDITS = 10
MEND = {"method": "mend"}
ROME = {"method": "rome", "config": {"learning_rate": 0.25}}
"""Smaller steps than one edit needs: ten share one matrix, which the gate bounds."""
LOOSE = {"layer": 1, "clamp": 1e9, "weight_decay": 0.0, "kl_factor": 0.0, "learning_rate": 2.0, "steps": 6}
BREAKING = {"method": "rome", "config": LOOSE | {"prefixes": []}}
"""Fifty edits one after the other, each without the bound that keeps it small."""


@pytest.fixture(scope="module")
def base():
    return load_base(demo.BUNDLE, device="cpu")


@pytest.fixture(scope="module")
def statistics(base, tmp_path_factory):
    """The key covariance of layer 1, which ROME needs."""
    folder = tmp_path_factory.mktemp("statistics")
    texts = [f"{probe.prompt} {probe.target}" for case in facts() for probe in case.in_scope]
    site = base.anatomy.within(1, base.anatomy.mlp_out)
    covariance.collect(base, site, texts, folder=folder, sample=500, progress=False)
    return folder


@pytest.fixture
async def services(store, artifacts, base, statistics, encoder):
    """The service as it is started on the bundle."""
    memory = LiveMemory(encoder, load_scope(demo.SCOPE_CLASSIFIER, device="cpu"), candidates=3, threshold=None)
    counterfactual = load_counterfactual(demo.COUNTERFACTUAL, device="cpu")
    runtime = ModelRuntime(
        base, memory, store, artifacts, catch_up_seconds=5, suites=SUITES, counterfactual=counterfactual
    )
    with (
        closing(runtime),
        closing(ModelBaker(base, suites=SUITES, assets=(demo.MEND.parent, demo.STATISTICS, statistics))) as baker,
    ):
        await runtime.start()
        yield Services(store, runtime, baker, artifacts)


@pytest.mark.parametrize(("bake", "to_known_names"), [(MEND, False), (ROME, True)], ids=["mend", "rome"])
async def test_ten_changes_move_from_the_memory_into_the_weights_and_back(services, base, bake, to_known_names):
    cases = apart(EDITS, 0, 1, to_known_names=to_known_names)
    questions = [next(probe.prompt for probe in case.in_scope if probe.form == EDIT) for case in cases]
    others = [case.in_scope[0].prompt for case in facts()[::250]]
    tensors = tensor_hash(base.model)

    async with client_of(services) as client:

        async def answers(prompts):
            return [(await client.post("/generate", json={"prompt": prompt})).json() for prompt in prompts]

        def texts(answered):
            return [answer["text"] for answer in answered]

        before = await answers(questions + others)
        for case in cases:
            body = {"prompt": case.edit.prompt, "target": case.edit.target, "subject": case.subject}
            assert (await client.post("/edits", json=body)).status_code == 201
        from_memory = await answers(questions + others)
        assert {answer["source"] for answer in from_memory[:EDITS]} == {"edit"}
        assert texts(from_memory[EDITS:]) == texts(before[EDITS:])

        queued = (await client.post("/bakes", json=bake)).json()
        await bakes.run(services, queued["id"])
        baked = (await client.get(f"/bakes/{queued['id']}")).json()
        assert baked["state"] == "done", baked["report"]
        assert await answers(questions + others) == [answer | {"revision": EDITS + 1} for answer in from_memory]

        assert (await client.post("/checkpoints/v1/activate", json={})).status_code == 200
        from_weights = await answers(questions + others)
        assert {(answer["source"], answer["version"]) for answer in from_weights} == {("base", "v1")}
        targets = [case.edit.target for case in cases]
        assert texts(from_weights)[:EDITS] == texts(from_memory)[:EDITS] == targets
        match = (await client.post("/edits/match", json={"prompts": questions})).json()["matches"]
        assert {one["decision"] for one in match} == {"no_edits"}

        assert (await client.post("/checkpoints/rollback", json={})).json()["active"] == "v0"
        assert [answer | {"revision": 0} for answer in await answers(questions + others)] == [
            answer | {"revision": 0} for answer in from_memory
        ]
        assert texts(await answers(others)) == texts(before[EDITS:])
    assert tensor_hash(base.model) == tensors


async def test_a_bake_that_would_break_the_model_is_refused_with_its_report_and_serving_is_undisturbed(services):
    cases = [case for case in drift() if case.subject][:50]
    async with client_of(services) as client:
        for case in cases:
            body = {"prompt": case.edit.prompt, "target": case.edit.target, "subject": case.subject}
            assert (await client.post("/edits", json=body)).status_code == 201
        question = {"prompt": "What is the capital of France?", "edits": False}
        before = (await client.post("/generate", json=question)).json()
        queued = (await client.post("/bakes", json=BREAKING)).json()
        await bakes.run(services, queued["id"])
        refused = (await client.get(f"/bakes/{queued['id']}")).json()
        assert (refused["state"], refused["version"]) == ("refused", None)
        unmet = {finding["measure"] for finding in refused["report"]["findings"] if not finding["met"]}
        assert "relative_norm" in unmet
        assert all(measure in refused["report"]["refusal"] for measure in unmet)
        assert [version["id"] for version in (await client.get("/checkpoints")).json()["data"]] == ["v0"]
        assert (await client.post("/generate", json=question)).json() == before
