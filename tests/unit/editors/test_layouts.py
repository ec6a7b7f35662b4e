from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration
from transformers.pytorch_utils import Conv1D

from editors.delta import Delta, Dense, install
from editors.model.generation import continue_greedily
from editors.model.layouts import Layouts
from editors.model.loading import BaseModel, load_base, load_counterfactual, tensor_hash
from editors.model.views import view
from tests.tiny_models import CONFIGS, VOCABULARY, save_lively, tiny_tokenizer

PROMPTS = [[5, 6, 7], [9], [11, 12, 13, 14, 15]]
SITES = {"llama": "model.layers.0.mlp.down_proj.weight", "gpt2": "transformer.h.0.mlp.c_proj.weight"}


def loaded(model_type: str, folder, **how: str) -> BaseModel:
    return load_base(save_lively(model_type, folder / model_type), device="cpu", **how)


def logits(model: BaseModel, rows: int = 1) -> torch.Tensor:
    with torch.inference_mode():
        return model.model(torch.tensor([[5, 6, 7, 8]] * rows)).logits


def written(model: BaseModel) -> list[list[int]]:
    return continue_greedily(model.model, PROMPTS, max_new_tokens=12)


def edited(base: BaseModel) -> BaseModel:
    """A version of the base that answers otherwise."""
    site = SITES[base.model.config.model_type]
    shape = base.anatomy.oriented(site, base.model.get_parameter(site)).shape
    change = torch.randn(tuple(shape), generator=torch.Generator().manual_seed(0))
    model = install(base, Delta(base=base.fingerprint, changes={site: Dense(change)}))
    return replace(base, model=model)


@pytest.mark.parametrize("model_type", CONFIGS)
def test_a_served_model_answers_as_the_model_does(model_type, tmp_path):
    base = loaded(model_type, tmp_path)
    served = Layouts(base, fewest_weights=0).served(base)
    assert any("forward" in vars(module) for module in served.model.modules())
    torch.testing.assert_close(logits(served), logits(base), rtol=1e-4, atol=1e-4)
    assert written(served) == written(base)


def test_a_served_model_with_an_encoder_answers_as_the_model_does(tmp_path):
    config = T5Config(
        vocab_size=VOCABULARY, d_model=32, d_kv=16, d_ff=48, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    torch.manual_seed(0)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    model = load_counterfactual(tmp_path, device="cpu")
    served = Layouts(model, fewest_weights=0).served(model)
    assert any("forward" in vars(module) for module in served.model.modules())
    assert written(served) == written(model)


@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
@pytest.mark.parametrize(("inner", "outer"), [(32, 48), (256, 1024), (3072, 768), (4864, 128), (768, 8192)])
def test_a_row_is_multiplied_alike_alone_and_among_any_number_of_others(kind, inner, outer, tmp_path):
    base = loaded("llama", tmp_path)
    torch.manual_seed(0)
    layer = nn.Linear(inner, outer) if kind is nn.Linear else Conv1D(outer, inner)
    base.model.lm_head = layer.requires_grad_(requires_grad=False)
    served = Layouts(base, fewest_weights=0).served(base).model.lm_head
    rows = torch.randn(200, inner)
    among_all = served(rows)
    torch.testing.assert_close(among_all, layer(rows), rtol=1e-3, atol=1e-4)
    for count in (1, 2, 3, 7, 8, 31, 32, 33, 100):
        assert torch.equal(served(rows[:count]), among_all[:count])
        assert torch.equal(served(rows[60 : 60 + count, None]), among_all[60 : 60 + count, None])


@pytest.mark.parametrize("model_type", SITES)
def test_a_version_is_served_with_its_own_weights_and_the_base_as_before(model_type, tmp_path):
    base = loaded(model_type, tmp_path)
    version, before = edited(base), (tensor_hash(base.model), written(base))
    layouts = Layouts(base, fewest_weights=0)
    served = layouts.served(version)
    assert written(served) == written(version) != written(base)
    torch.testing.assert_close(logits(served), logits(version), rtol=1e-4, atol=1e-4)
    assert written(layouts.served(base)) == written(base)
    assert (tensor_hash(base.model), written(base)) == before
    for model in (base.model, version.model, view(base.model)):
        assert not any("forward" in vars(module) for module in model.modules())


def test_layouts_take_as_much_memory_as_they_may_and_versions_lay_out_what_their_base_does(tmp_path):
    base = loaded("llama", tmp_path)
    whole = Layouts(base, fewest_weights=0).size
    assert whole == sum(module.weight.nbytes for module in base.model.modules() if type(module) is nn.Linear)
    part = Layouts(base, most_bytes=whole // 2, fewest_weights=0)
    assert 0 < part.size <= whole // 2
    quick = [
        [name for name, module in part.served(model).model.named_modules() if "forward" in vars(module)]
        for model in (base, edited(base))
    ]
    assert quick[0] == quick[1] != []
    assert written(part.served(base)) == written(base)


def test_a_model_is_served_as_it_is_where_there_is_no_room_or_no_help(tmp_path):
    base = loaded("llama", tmp_path)
    assert Layouts(base, most_bytes=0, fewest_weights=0).served(base) is base
    assert Layouts(base).served(base) is base  # none of its layers is large enough
    half = loaded("llama", tmp_path, dtype="bfloat16")
    assert Layouts(half, fewest_weights=0).served(half) is half
