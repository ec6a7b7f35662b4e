from __future__ import annotations

import copy

import pytest
import torch

from editors.delta import Dense, LowRank, install
from editors.errors import EditFailed, IneffectiveEdit, UnknownMethod
from editors.evaluation.subjects import ModelSubject
from editors.method import EditRequest
from editors.methods.fine_tuning.config import FineTuningConfig
from editors.methods.fine_tuning.editor import FineTuning
from editors.model.anatomy import ANATOMIES
from editors.model.loading import load_base
from editors.registry import METHODS, method_named
from tests.tiny_models import CONFIGS, save_lively

FRANCE = EditRequest(prompt="The capital of France is", target="Lyon")
QUICK = {"layer": 1, "steps": 5, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return load_base(save_lively("gpt2", tmp_path_factory.mktemp("models") / "lively-gpt2"), device="cpu")


def prepare(base, *requests, **settings):
    return FineTuning().prepare(base, requests or [FRANCE], FineTuningConfig(**QUICK | settings))


def change_of(delta):
    (change,) = delta.changes.values()
    return change


def mean_log_probability(model, base, prompt, target="Lyon"):
    return ModelSubject(model, base.tokenizer, max_new_tokens=1).score([(prompt, target)])[0].mean


def test_one_matrix_is_trained_as_adam_would_train_it(base):
    """The first steps of Adam on the weight itself, stored as GPT-2 stores it."""
    model = copy.deepcopy(base.model)
    weight = model.transformer.h[1].mlp.c_proj.weight.requires_grad_()
    before, optimizer = weight.detach().clone(), torch.optim.Adam([weight], lr=1e-2)
    ids = torch.tensor([base.tokenizer("The capital of France is Lyon")["input_ids"]])
    target = len(base.tokenizer(" Lyon")["input_ids"])
    for _ in range(5):
        optimizer.zero_grad()
        logits = model(input_ids=ids).logits[0, -target - 1 : -1]
        torch.nn.functional.cross_entropy(logits, ids[0, -target:]).backward()
        optimizer.step()
    expected = (weight.detach() - before).T
    torch.testing.assert_close(change_of(prepare(base)).product(), expected, atol=1e-4, rtol=1e-3)


def test_a_bounded_change_keeps_every_entry_within_its_bound(base):
    free, bounded = change_of(prepare(base)), change_of(prepare(base, largest_change=5e-3))
    assert isinstance(free, Dense)
    assert float(free.weight.abs().max()) > 5e-3
    assert float(bounded.weight.abs().max()) == pytest.approx(5e-3)


def test_keeping_what_the_model_says_of_itself_changes_it_less(base):
    def drift(delta):
        ids = torch.tensor([base.tokenizer("Who is the prime minister of the UK?")["input_ids"]])
        with torch.inference_mode():
            one, other = (model(input_ids=ids).logits.log_softmax(-1) for model in (base.model, install(base, delta)))
        return float((one.exp() * (one - other)).sum(-1).mean())

    assert drift(prepare(base, kl_factor=10.0)) < drift(prepare(base))


def test_paraphrases_are_trained_on_too(base):
    other = "France is governed from"
    alone = prepare(base)
    told = prepare(base, EditRequest(prompt=FRANCE.prompt, target="Lyon", paraphrases=(other,)))
    assert mean_log_probability(install(base, told), base, other) > mean_log_probability(
        install(base, alone), base, other
    )


def test_a_rank_gives_low_rank_factors(base):
    change = change_of(prepare(base, rank=2))
    assert isinstance(change, LowRank)
    assert change.rank == 2


def test_training_stops_where_the_loss_is_low_enough(base):
    def nll(**settings):
        return -mean_log_probability(install(base, prepare(base, **settings)), base, FRANCE.prompt)

    assert nll(steps=40) < 4.0
    assert 4.0 < nll(steps=40, stop_loss=5.2) < 5.2


def test_an_edit_without_effect_is_refused(base):
    with pytest.raises(IneffectiveEdit, match="Lyon"):
        prepare(base, learning_rate=1e-12)


def test_an_edit_that_runs_away_is_refused(base):
    with pytest.raises(EditFailed):
        prepare(base, learning_rate=1e30)


@pytest.mark.parametrize("model_type", ANATOMIES)
def test_every_architecture_has_a_default_layer(model_type):
    config = CONFIGS[model_type]
    assert 0 <= FineTuningConfig().layer_of(config) < config.num_hidden_layers
    with pytest.raises(ValueError, match="layers 0 to 1"):
        FineTuningConfig(layer=-1).layer_of(config)


@pytest.mark.parametrize(
    "setting",
    [
        {"steps": 0},
        {"learning_rate": -1.0},
        {"kl_factor": -1.0},
        {"rank": 0},
        {"largest_change": 0.0},
        {"kept_texts": ()},
    ],
)
def test_settings_that_make_no_sense_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        FineTuningConfig(**setting)


def test_methods_are_found_by_the_name_they_give_themselves():
    for name, method in METHODS.items():
        assert method.name == name
        assert method_named(name) is method
        method.config()  # every setting has a default
    with pytest.raises(UnknownMethod, match="roam") as caught:
        method_named("roam")
    assert "rome" in caught.value.hint
