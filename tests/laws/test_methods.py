"""What every weight editor owes: one matrix of methods and architectures. A method that is registered is in it."""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from editors.delta import install
from editors.delta_files import load, save, to_hf, to_peft
from editors.errors import EditFailed, EmptyTarget
from editors.evaluation.subjects import ModelSubject
from editors.method import EditRequest
from editors.methods.fine_tuning.config import FineTuningConfig
from editors.methods.mend.config import MendConfig, NetworkConfig
from editors.methods.mend.files import TrainedEditor
from editors.methods.mend.files import save as save_editor
from editors.methods.mend.network import Networks
from editors.methods.rome.config import RomeConfig
from editors.model.anatomy import ANATOMIES
from editors.model.loading import load_base, tensor_hash
from editors.model.views import view
from editors.registry import METHODS
from editors.surgery import covariance
from tests.tiny_models import save_lively, tiny_corpus

QUICK = {
    "fine_tuning": FineTuningConfig(layer=1, steps=4, learning_rate=5e-3, kl_factor=0.1, kept_texts=((3, 2),)),
    "mend": MendConfig(),
    "rome": RomeConfig(layer=0, steps=6, prefixes=((2, 2),), ridge=1e-3),
}
"""Each method's settings here: enough to take effect, and no more."""
REQUESTS = (EditRequest(prompt="The capital of France is", target="Lyon", subject="France"),)
TOKENS = torch.arange(2, 26).reshape(2, 12)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Every architecture in either dtype, loaded once."""
    loaded, folder = {}, tmp_path_factory.mktemp("lively")

    def base(model_type, dtype="float32"):
        key = model_type, dtype
        if key not in loaded:
            saved = save_lively(model_type, folder / f"{model_type}-{dtype}")
            loaded[key] = load_base(saved, device="cpu", dtype=dtype)
        return loaded[key]

    return base


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    """What the methods need to have been made beforehand."""
    folder = tmp_path_factory.mktemp("assets")

    def made_for(base):
        site = base.anatomy.within(QUICK["rome"].layer, base.anatomy.mlp_out)
        covariance.collect(base, site, tiny_corpus(), folder=folder, progress=False)
        save_editor(untrained(base), folder / f"mend-{base.fingerprint}.safetensors")
        return [folder]

    return made_for


def untrained(base):
    """A MEND editor that has learnt nothing yet: its edit is one step down the gradient."""
    config = NetworkConfig(blocks=2, rank=4, step_size=2e-3)
    networks = Networks(config.sites(base), config)
    return TrainedEditor(base=base.fingerprint, config=config, networks=networks, score=0.0)


@pytest.fixture(params=METHODS)
def method(request):
    return METHODS[request.param]


@pytest.fixture(params=ANATOMIES)
def model_type(request):
    return request.param


@pytest.fixture(scope="module")
def prepared(bases, assets):
    """A method's delta for the requests, computed once for each base."""
    deltas = {}

    def delta(method, model_type):
        key = method.name, model_type
        if key not in deltas:
            base = bases(model_type)
            deltas[key] = method.prepare(base, REQUESTS, QUICK[method.name], assets=assets(base))
        return deltas[key]

    return delta


@torch.inference_mode()
def logits(model):
    return model(input_ids=TOKENS).logits.float()


def traces(base):
    """Everything about a model, and about the process, that computing a delta might disturb."""
    modules, parameters = list(base.model.modules()), list(base.model.parameters())
    hooks = [len(h) for m in modules for h in (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks)]
    return {
        "tensors": tensor_hash(base.model),
        "hooks": hooks,
        "flags": [parameter.requires_grad for parameter in parameters],
        "gradients": [parameter.grad for parameter in parameters],
        "training": [module.training for module in modules],
        "config": json.dumps(base.model.config.to_dict(), default=str),
        "tokenizer": (base.tokenizer.padding_side, base.tokenizer.backend_tokenizer.to_str()),
        "random state": (torch.get_rng_state().tolist(), random.getstate()),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "logits": logits(base.model).tolist(),
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_prepare_leaves_no_trace(bases, assets, method, model_type, dtype):
    base = bases(model_type, dtype)
    folders, before = assets(base), traces(base)
    delta = method.prepare(base, REQUESTS, QUICK[method.name], assets=folders)
    assert traces(base) == before
    assert {t.dtype for change in delta.changes.values() for t in change.tensors} == {torch.float32}


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0], ids=["first", "middle", "last"])
def test_prepare_leaves_no_trace_when_memory_runs_out_midway(bases, assets, method, share, monkeypatch):
    base = bases("llama")
    folders, before = assets(base), traces(base)
    kind, calls = type(base.model), []
    forward = kind.forward

    def prepare_with(failing):
        def failing_forward(self, *args, **kwargs):
            calls.append(1)
            if len(calls) == failing:
                raise torch.OutOfMemoryError
            return forward(self, *args, **kwargs)

        calls.clear()
        with monkeypatch.context() as patch:
            patch.setattr(kind, "forward", failing_forward)
            method.prepare(base, REQUESTS, QUICK[method.name], assets=folders)

    prepare_with(failing=None)
    with pytest.raises(EditFailed, match="Memory ran out"):
        prepare_with(failing=1 + round(share * (len(calls) - 1)))
    assert traces(base) == before


def test_prepare_leaves_no_trace_when_it_refuses(bases, assets, method, model_type):
    base = bases(model_type)
    folders, before = assets(base), traces(base)
    with pytest.raises(EmptyTarget):
        method.prepare(
            base, [*REQUESTS, EditRequest(prompt="Paris is", target=" ")], QUICK[method.name], assets=folders
        )
    with pytest.raises(ValueError, match="requests"):
        method.prepare(base, [], QUICK[method.name], assets=folders)
    assert traces(base) == before


def test_every_target_becomes_likelier(bases, prepared, method, model_type):
    base = bases(model_type)
    edited = install(base, prepared(method, model_type))
    pairs = [(request.prompt, request.target) for request in REQUESTS]

    def likelihoods(model):
        return [scored.mean for scored in ModelSubject(model, base.tokenizer, max_new_tokens=1).score(pairs)]

    assert all(now > was for was, now in zip(likelihoods(base.model), likelihoods(edited), strict=True))


def test_the_same_seed_gives_the_same_delta_bit_for_bit(bases, assets, prepared, method, model_type):
    base, first = bases(model_type), prepared(method, model_type)
    torch.rand(3)  # the global random state has no say
    second = method.prepare(base, REQUESTS, QUICK[method.name], assets=assets(base))
    assert second.origins == first.origins
    assert second.changes.keys() == first.changes.keys()
    for site, change in first.changes.items():
        pairs = zip(change.tensors, second.changes[site].tensors, strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


def test_a_delta_says_how_it_was_made(prepared, method):
    (origin,) = prepared(method, "llama").origins
    assert origin.method == method.name
    assert [edit["target"] for edit in origin.edits] == ["Lyon"]
    assert origin.config == json.loads(json.dumps(asdict(QUICK[method.name])))


def test_a_saved_delta_gives_the_same_logits_when_it_is_loaded(bases, prepared, method, model_type, tmp_path):
    base, delta = bases(model_type), prepared(method, model_type)
    save(delta, tmp_path / "delta.safetensors")
    loaded = load(tmp_path / "delta.safetensors", base)
    assert torch.equal(logits(install(base, loaded)), logits(install(base, delta)))
    assert not torch.equal(logits(install(base, delta)), logits(base.model))
    assert (loaded.base, loaded.origins) == (delta.base, delta.origins)


def test_a_merged_export_gives_the_same_logits(bases, prepared, method, model_type, tmp_path):
    base, delta = bases(model_type), prepared(method, model_type)
    to_hf(delta, base, tmp_path / "merged")
    merged = load_base(tmp_path / "merged", device="cpu")
    assert difference(merged.model, install(base, delta)) <= method.tolerance
    assert merged.tokenizer("Lyon")["input_ids"] == base.tokenizer("Lyon")["input_ids"]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT asks for it; transformers warns
def test_a_peft_adapter_gives_the_same_logits(bases, prepared, method, model_type, tmp_path: Path):
    base, delta = bases(model_type), prepared(method, model_type)
    to_peft(delta, base, tmp_path / "adapter")
    adapted = PeftModel.from_pretrained(view(base.model), tmp_path / "adapter").eval()
    assert difference(adapted, install(base, delta)) <= method.tolerance
    assert difference(adapted, base.model) > 10 * method.tolerance


def difference(one, other):
    return float((logits(one) - logits(other)).abs().max())
