from __future__ import annotations

import pytest
import torch

from editors.delta import Delta, Dense, install
from editors.model.loading import load_base
from editors.model.views import view
from editors.surgery import quick
from editors.surgery.quick import Quick
from tests.tiny_models import save_lively

IDS = torch.arange(2, 26).reshape(2, 12)
SITES = {"llama": "model.layers.0.mlp.down_proj.weight", "gpt2": "transformer.h.0.mlp.c_proj.weight"}


@pytest.fixture(scope="module", params=SITES)
def base(request, tmp_path_factory):
    return load_base(save_lively(request.param, tmp_path_factory.mktemp("models") / request.param), device="cpu")


def frozen(model):
    return view(model).requires_grad_(requires_grad=False)


def passed(model):
    """Logits, and the gradient for what the embeddings write."""
    embedded = model.get_input_embeddings()(IDS).detach().requires_grad_()
    logits = model(inputs_embeds=embedded).logits
    (gradient,) = torch.autograd.grad(logits.logsumexp(-1).sum(), [embedded])
    return logits.detach(), gradient


@pytest.mark.parametrize("at_once", [False, True])
def test_a_quickened_view_computes_and_differentiates_as_the_model_does_however_often_it_is_used(base, at_once):
    quickened, expected = Quick(base, at_once=at_once)(frozen(base.model)), passed(frozen(base.model))
    assert any("forward" in vars(module) for module in quickened.modules())
    for _ in range(5):
        torch.testing.assert_close(passed(quickened), expected, rtol=1e-4, atol=1e-4)


def test_an_edited_layer_is_not_taken_for_the_bases(base):
    site = SITES[base.model.config.model_type]
    shape = base.anatomy.oriented(site, base.model.get_parameter(site)).shape
    delta = Delta(base=base.fingerprint, changes={site: Dense(torch.full(tuple(shape), 0.1))})
    quicken, expected = Quick(base), passed(install(base, delta).requires_grad_(requires_grad=False))
    for _ in range(4):
        passed(quicken(frozen(base.model)))
        found = passed(quicken(install(base, delta).requires_grad_(requires_grad=False)))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_base_and_its_views_are_as_they_were(base):
    Quick(base)(frozen(base.model))
    assert not any("forward" in vars(module) for model in (base.model, view(base.model)) for module in model.modules())


def test_a_model_of_another_dtype_is_left_to_torch(base):
    half = load_base(base.model.name_or_path, device="cpu", dtype="bfloat16")
    quickened = Quick(half)(frozen(half.model))
    assert not any("forward" in vars(module) for module in quickened.modules())


def test_layouts_take_no_more_memory_than_they_may(base, monkeypatch):
    site = SITES[base.model.config.model_type].removesuffix(".weight")
    monkeypatch.setattr(quick, "_MOST_BYTES", 2 * base.model.get_parameter(f"{site}.weight").numel() * 4)
    quickened, expected = Quick(base)(frozen(base.model)), passed(frozen(base.model))
    laid_out = [module for module in quickened.modules() if "forward" in vars(module) and hasattr(module, "weight")]
    own = [module.weight.numel() for module in laid_out]
    assert 0 < sum(own) * 8 <= quick._MOST_BYTES
    for _ in range(4):
        torch.testing.assert_close(passed(quickened), expected, rtol=1e-4, atol=1e-4)
