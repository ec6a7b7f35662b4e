"""Weight editing on a CUDA device; skipped, with a line on docs/skips.md, where there is none."""

from __future__ import annotations

import pytest
import torch

from editors.delta import install
from editors.evaluation.subjects import ModelSubject
from editors.method import EditRequest
from editors.methods.fine_tuning.config import FineTuningConfig
from editors.methods.mend.config import MendConfig, NetworkConfig
from editors.methods.mend.files import TrainedEditor, save
from editors.methods.mend.network import Networks
from editors.methods.rome.config import RomeConfig
from editors.model.loading import load_base, tensor_hash
from editors.registry import METHODS
from editors.surgery import covariance
from tests.tiny_models import save_lively, tiny_corpus

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

REQUESTS = (EditRequest(prompt="The capital of France is", target="Lyon", subject="France"),)
QUICK = {
    "fine_tuning": FineTuningConfig(layer=1, steps=4, learning_rate=5e-3),
    "mend": MendConfig(),
    "rome": RomeConfig(layer=0, steps=6, prefixes=(), ridge=1e-3),
}
"""Without texts that the model samples, which may differ where devices round differently."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_lively("llama", tmp_path_factory.mktemp("models") / "lively-llama")


def made_for(base, folder):
    """What the methods need made beforehand, made on the base's device."""
    site = base.anatomy.within(0, base.anatomy.mlp_out)
    statistics = covariance.collect(base, site, tiny_corpus(), folder=folder, progress=False)
    config = NetworkConfig(blocks=2, rank=4, step_size=2e-3)
    networks = Networks(config.sites(base), config)
    save(TrainedEditor(base=base.fingerprint, config=config, networks=networks, score=0.0), folder / "mend.safetensors")
    return statistics


def likelihood(base, model):
    subject = ModelSubject(model, base.tokenizer, max_new_tokens=1)
    return subject.score([(REQUESTS[0].prompt, REQUESTS[0].target)])[0].mean


@pytest.mark.parametrize("method", METHODS)
def test_an_edit_made_on_the_gpu_is_that_made_on_the_cpu(folder, method, tmp_path):
    edited = []
    for device in ("cpu", "cuda"):
        base = load_base(folder, device=device, dtype="float32")
        made_for(base, tmp_path / device)
        before = tensor_hash(base.model)
        delta = METHODS[method].prepare(base, REQUESTS, QUICK[method], assets=[tmp_path / device])
        edited.append(likelihood(base, install(base, delta)))
        assert tensor_hash(base.model) == before
        assert edited[-1] > likelihood(base, base.model)
    assert edited[1] == pytest.approx(edited[0], abs=1e-2)


@pytest.mark.parametrize("method", METHODS)
def test_a_bfloat16_model_on_the_gpu_gets_a_float32_delta_that_works(folder, method, tmp_path):
    base = load_base(folder, device="cuda", dtype="bfloat16")
    made_for(base, tmp_path)
    delta = METHODS[method].prepare(base, REQUESTS, QUICK[method], assets=[tmp_path])
    tensors = [tensor for change in delta.changes.values() for tensor in change.tensors]
    assert {(tensor.dtype, tensor.device.type) for tensor in tensors} == {(torch.float32, "cpu")}
    assert likelihood(base, install(base, delta)) > likelihood(base, base.model)


def test_statistics_summed_on_the_gpu_are_those_of_the_cpu(folder, tmp_path):
    found = [
        made_for(load_base(folder, device=device, dtype="float32"), tmp_path / device) for device in ("cpu", "cuda")
    ]
    assert found[0].keys == found[1].keys
    torch.testing.assert_close(found[0].second_moment, found[1].second_moment, rtol=1e-4, atol=1e-6)
