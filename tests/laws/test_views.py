"""A view shares the base's tensors and can never be told from it, nor reach it, but through what it owns."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from editors.errors import UnknownParameter
from editors.model.loading import tensor_hash
from editors.model.views import view

LLAMA = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 99}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "vocab_size": 99}
MODELS = {
    "llama": (LlamaConfig(**LLAMA), "model.layers.1.mlp.down_proj.weight"),
    "tied llama": (LlamaConfig(**LLAMA, tie_word_embeddings=True), "model.layers.0.self_attn.q_proj.weight"),
    "gpt2": (GPT2Config(**GPT2), "transformer.h.1.mlp.c_proj.weight"),
}
TIED = {
    "tied llama": ("model.embed_tokens.weight", "lm_head.weight"),
    "gpt2": ("transformer.wte.weight", "lm_head.weight"),
}
TOKENS = torch.arange(24).reshape(2, 12)


@pytest.fixture(scope="module", autouse=True)
def _few_threads():
    torch.set_num_threads(1)


@pytest.fixture(params=MODELS)
def case(request):
    """A frozen model, and the name of one of its weights; the model is the same afterwards, whatever the test did."""
    config, weight = MODELS[request.param]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(requires_grad=False)
    before = tensor_hash(model)
    yield model, weight
    assert tensor_hash(model) == before
    assert not any(parameter.requires_grad for parameter in model.parameters())


@torch.inference_mode()
def logits(model):
    return model(input_ids=TOKENS).logits


def parameters(model):
    return dict(model.named_parameters(remove_duplicate=False))


def test_a_view_answers_as_the_base_bit_for_bit(case):
    model, weight = case
    assert torch.equal(logits(view(model)), logits(model))
    assert torch.equal(logits(view(model, [weight])), logits(model))


def test_writing_to_an_owned_parameter_changes_the_view_alone(case):
    model, weight = case
    before = logits(model)
    edited = view(model, [weight])
    edited.get_parameter(weight).add_(1.0)
    assert not torch.equal(logits(edited), before)
    assert torch.equal(logits(model), before)
    assert torch.equal(logits(view(model)), before)


def test_a_view_costs_the_memory_of_what_it_owns(case):
    model, weight = case
    base, edited = parameters(model), parameters(view(model, [weight]))
    assert edited.keys() == base.keys()
    assert {name for name in base if edited[name].data_ptr() != base[name].data_ptr()} == {weight}
    ours, theirs = dict(view(model).named_buffers()), dict(model.named_buffers())
    assert {name: buffer.data_ptr() for name, buffer in ours.items()} == {
        name: buffer.data_ptr() for name, buffer in theirs.items()
    }


def test_dropping_a_view_frees_what_it_owns(case):
    model, weight = case
    edited = view(model, [weight])
    owned = weakref.ref(edited.get_parameter(weight))
    assert owned() is not None
    del edited
    gc.collect()
    assert owned() is None


def test_hooks_on_a_view_do_not_fire_on_the_base(case):
    model, weight = case
    edited, calls = view(model), []
    with torch.inference_mode():
        edited.get_submodule(weight.rpartition(".")[0]).register_forward_hook(lambda *_: calls.append(1))
        logits(model)
        assert calls == []
        logits(edited)
        assert calls == [1]


def test_a_view_may_be_trained_and_cast_without_reaching_the_base(case):
    model, weight = case
    edited = view(model, [weight])
    edited.requires_grad_(requires_grad=True)
    edited(input_ids=TOKENS, labels=TOKENS).loss.backward()
    assert edited.get_parameter(weight).grad is not None
    assert all(parameter.grad is None for parameter in model.parameters())
    assert edited.to(torch.bfloat16).dtype == torch.bfloat16
    assert model.dtype == torch.float32


def test_a_view_of_a_view_shares_with_both(case):
    model, weight = case
    first = view(model, [weight])
    first.get_parameter(weight).mul_(2.0)
    second = view(first)
    assert second.get_parameter(weight).data_ptr() == first.get_parameter(weight).data_ptr()
    assert torch.equal(logits(second), logits(first))


@pytest.mark.parametrize("name", TIED)
@pytest.mark.parametrize("which", [0, 1])
def test_tied_weights_stay_tied_whichever_name_is_owned(name, which):
    model = AutoModelForCausalLM.from_config(MODELS[name][0]).eval().requires_grad_(requires_grad=False)
    base = parameters(model)
    shared, owned = parameters(view(model)), parameters(view(model, [TIED[name][which]]))
    embeddings, head = TIED[name]
    assert shared[embeddings] is shared[head]
    assert shared[head].data_ptr() == base[head].data_ptr()
    assert owned[embeddings] is owned[head]
    assert owned[head].data_ptr() != base[head].data_ptr()


def test_a_name_that_the_model_lacks_is_refused_with_the_nearest(case):
    model, weight = case
    with pytest.raises(UnknownParameter, match=weight + "s'") as caught:
        view(model, [weight + "s"])
    assert repr(weight) in caught.value.hint
