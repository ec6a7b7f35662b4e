from __future__ import annotations

import pytest
import torch

from editors.errors import UnknownArchitecture
from editors.model.anatomy import ANATOMIES, anatomy_of
from editors.model.loading import load_base
from tests.tiny_models import UNKNOWN


@pytest.mark.parametrize("model_type", ANATOMIES)
def test_every_path_of_the_table_leads_to_a_module(model_folders, model_type):
    base = load_base(model_folders[model_type], device="cpu")
    anatomy, model = base.anatomy, base.model
    hidden, vocabulary = model.config.hidden_size, model.config.vocab_size
    assert tuple(model.get_submodule(anatomy.embeddings).weight.shape) == (vocabulary, hidden)
    assert tuple(model.get_submodule(anatomy.lm_head).weight.shape) == (vocabulary, hidden)
    assert tuple(model.get_submodule(anatomy.final_norm).weight.shape) == (hidden,)
    for layer in range(model.config.num_hidden_layers):
        assert "Attention" in type(model.get_submodule(anatomy.within(layer, anatomy.attention))).__name__


@pytest.mark.parametrize("model_type", ANATOMIES)
def test_the_table_knows_which_way_round_the_weights_are(model_folders, model_type):
    base = load_base(model_folders[model_type], device="cpu")
    anatomy, hidden = base.anatomy, base.model.config.hidden_size

    def widths(part: str) -> tuple[int, int]:  # [in, out]
        rows, columns = base.model.get_submodule(anatomy.within(1, part)).weight.shape
        return (rows, columns) if anatomy.transposed else (columns, rows)

    inner = widths(anatomy.mlp_out)[0]
    assert inner != hidden
    assert widths(anatomy.mlp_out) == (inner, hidden)
    halves = 2 if anatomy.fused else 1
    assert [widths(part) for part in anatomy.mlp_in] == [(hidden, halves * inner)] * len(anatomy.mlp_in)


@pytest.mark.parametrize("model_type", ANATOMIES)
def test_an_oriented_weight_multiplies_as_its_module_does(model_folders, model_type):
    base = load_base(model_folders[model_type], device="cpu")
    for path in (base.anatomy.within(1, base.anatomy.mlp_out), base.anatomy.lm_head):
        module = base.model.get_submodule(path)
        weight = base.anatomy.oriented(f"{path}.weight", module.weight)  # [out, in]
        x = torch.randn(3, weight.shape[1], generator=torch.Generator().manual_seed(0))
        bias = getattr(module, "bias", None)
        torch.testing.assert_close(module(x), x @ weight.T + (0 if bias is None else bias))
        assert torch.equal(base.anatomy.oriented(f"{path}.weight", weight), module.weight)


def test_an_unknown_architecture_can_be_served_and_says_what_editing_it_needs(model_folders):
    base = load_base(model_folders[UNKNOWN], device="cpu")
    prompt = base.tokenizer("Who is", return_tensors="pt", return_token_type_ids=False)
    assert base.model.generate(**prompt, max_new_tokens=2, min_new_tokens=2, do_sample=False).shape[1] > 2
    with pytest.raises(UnknownArchitecture, match=UNKNOWN) as caught:
        anatomy_of(base.model.config)
    assert "editors/model/anatomy.py" in caught.value.hint
