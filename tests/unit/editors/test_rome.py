from __future__ import annotations

import pytest
import torch

from editors.delta import Delta, LowRank, compose, install
from editors.errors import ContextExceeded, EditFailed, StatisticsNotFound, SubjectNotFound, UnknownArchitecture
from editors.evaluation.subjects import ModelSubject
from editors.method import EditRequest
from editors.methods.rome.config import DEPTHS, RomeConfig
from editors.methods.rome.editor import Rome
from editors.methods.rome.k_star import associate
from editors.methods.rome.update import direction, rank_one
from editors.model.anatomy import ANATOMIES
from editors.model.loading import load_base
from editors.model.views import view
from editors.surgery import covariance
from editors.surgery.quick import Quick
from editors.surgery.sampling import sampled_texts
from editors.surgery.tokens import locate
from tests.tiny_models import CONFIGS, UNKNOWN, save_lively, tiny_corpus

FRANCE = EditRequest(prompt="The capital of France is", target="Lyon", subject="France")
UK = EditRequest(prompt="The capital of the UK is", target="Hull", subject="UK")
SETTINGS = {"layer": 0, "steps": 6, "prefixes": ((2, 2),), "ridge": 1e-3}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return load_base(save_lively("gpt2", tmp_path_factory.mktemp("models") / "lively-gpt2"), device="cpu")


@pytest.fixture(scope="module")
def assets(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("assets")
    covariance.collect(base, "transformer.h.0.mlp.c_proj", tiny_corpus(), folder=folder, progress=False)
    return [folder]


def prepare(base, assets, *requests, **settings):
    return Rome().prepare(base, requests, RomeConfig(**SETTINGS | settings), assets=assets)


def mean_log_probability(model, base, request):
    subject = ModelSubject(model, base.tokenizer, max_new_tokens=1)
    return subject.score([(request.prompt, request.target)])[0].mean


def test_the_edited_matrix_writes_v_star_for_the_averaged_key(base, assets):
    path = "transformer.h.0.mlp.c_proj"
    lookups = [locate(base.tokenizer, prefix + FRANCE.prompt, "France") for prefix in ("", "It rains. ", "Who? ")]
    before = associate(base, view(base.model), path, [lookups])
    v_star = torch.randn(32, generator=torch.Generator().manual_seed(0))
    factor = covariance.find(base, path, assets).factor(SETTINGS["ridge"])
    change = rank_one(direction(factor, before.k_star), before.k_star, v_star - before.v)
    edited = install(base, Delta(base=base.fingerprint, changes={f"{path}.weight": change}))
    torch.testing.assert_close(associate(base, edited, path, [lookups]).v, v_star, atol=1e-4, rtol=1e-4)


def test_an_edit_is_a_change_of_rank_one_to_one_matrix(base, assets):
    delta = prepare(base, assets, FRANCE)
    (change,) = delta.changes.values()
    assert isinstance(change, LowRank)
    assert (list(delta.changes), change.rank) == (["transformer.h.0.mlp.c_proj.weight"], 1)


def test_edits_one_after_the_other_compose_into_one_delta(base, assets):
    both = prepare(base, assets, FRANCE, UK)
    (site,) = both.changes
    assert both.changes[site].rank == 2
    one, second = (
        Delta(base=base.fingerprint, changes={site: LowRank(both.changes[site].u[:, i], both.changes[site].v[i])})
        for i in (slice(0, 1), slice(1, 2))
    )
    together, apart = install(base, both), install(base, compose([one, second]))
    assert torch.equal(together.get_parameter(site), apart.get_parameter(site))
    for request in (FRANCE, UK):
        assert mean_log_probability(together, base, request) > mean_log_probability(base.model, base, request)


def test_a_subject_that_is_not_given_is_found(base, assets):
    unnamed = EditRequest(prompt=FRANCE.prompt, target=FRANCE.target)
    found, given = prepare(base, assets, unnamed), prepare(base, assets, FRANCE)
    assert found.origins == given.origins
    (site,) = found.changes
    assert torch.equal(found.changes[site].u, given.changes[site].u)


def test_other_prefixes_give_another_edit(base, assets):
    one, other = prepare(base, assets, FRANCE), prepare(base, assets, FRANCE, seed=1)
    (site,) = one.changes
    assert not torch.equal(one.changes[site].v, other.changes[site].v)


def test_prompts_that_take_turns_still_make_the_target_likelier_after_each_of_them(base, assets):
    prefixes = ((2, 6),)
    delta = prepare(base, assets, FRANCE, prefixes=prefixes, prompts_per_step=3, steps=12)
    edited = install(base, delta)
    for prefix in ("", *(f"{text}. " for text in sampled_texts(base, prefixes, seed=0, quick=Quick(base)))):
        asked = EditRequest(prompt=prefix + FRANCE.prompt, target="Lyon")
        assert mean_log_probability(edited, base, asked) > mean_log_probability(base.model, base, asked)
    everyone = prepare(base, assets, FRANCE, prefixes=prefixes, prompts_per_step=7, steps=12)
    (site,) = everyone.changes
    assert torch.equal(
        everyone.changes[site].u, prepare(base, assets, FRANCE, prefixes=prefixes, steps=12).changes[site].u
    )
    assert not torch.equal(everyone.changes[site].u, delta.changes[site].u)


def test_the_original_update_differs_from_the_corrected_one_unless_there_are_no_prefixes(base, assets):
    def update(**settings):
        return next(iter(prepare(base, assets, FRANCE, **settings).changes.values())).u

    assert not torch.equal(update(original_keys=True), update())
    assert torch.equal(update(original_keys=True, prefixes=()), update(prefixes=()))


def test_the_clamp_bounds_how_far_v_star_goes(base, assets):
    path = "transformer.h.0.mlp.c_proj"
    lookup = locate(base.tokenizer, FRANCE.prompt, "France")
    before = associate(base, view(base.model), path, [[lookup]])
    edited = install(base, prepare(base, assets, FRANCE, clamp=0.5, prefixes=(), learning_rate=5.0))
    moved = associate(base, edited, path, [[lookup]]).v - before.v
    assert float(moved.norm()) == pytest.approx(0.5 * float(before.v.norm()), rel=1e-3)


def test_a_subject_that_the_prompt_lacks_is_refused(base, assets):
    with pytest.raises(SubjectNotFound, match="Spain"):
        prepare(base, assets, EditRequest(prompt=FRANCE.prompt, target="Lyon", subject="Spain"))


def test_a_prompt_beyond_the_context_is_refused(base, assets):
    with pytest.raises(ContextExceeded, match="64"):
        prepare(base, assets, EditRequest(prompt="very " * 60 + FRANCE.prompt, target="Lyon", subject="France"))


def test_statistics_of_another_model_or_layer_do_not_do(base, assets, model_folders):
    with pytest.raises(StatisticsNotFound, match="tiny-llama") as caught:
        prepare(load_base(model_folders["llama"], device="cpu"), assets, FRANCE)
    assert "errata stats" in caught.value.hint
    with pytest.raises(StatisticsNotFound, match=r"h\.1"):
        prepare(base, assets, FRANCE, layer=1)


def test_an_edit_that_runs_away_is_refused(base, assets):
    with pytest.raises(EditFailed):
        prepare(base, assets, FRANCE, learning_rate=1e30)


def test_an_architecture_that_is_not_in_the_table_is_refused(model_folders):
    with pytest.raises(UnknownArchitecture, match=UNKNOWN):
        prepare(load_base(model_folders[UNKNOWN], device="cpu"), [], FRANCE)


@pytest.mark.parametrize("model_type", ANATOMIES)
def test_every_architecture_has_a_default_layer(model_type):
    assert set(DEPTHS) == set(ANATOMIES)
    config = CONFIGS[model_type]
    assert 0 <= RomeConfig().layer_of(config) < config.num_hidden_layers
    with pytest.raises(ValueError, match="layers 0 to 1"):
        RomeConfig(layer=2).layer_of(config)


@pytest.mark.parametrize(
    "setting",
    [
        {"steps": 0},
        {"learning_rate": 0.0},
        {"clamp": -1.0},
        {"ridge": -1.0},
        {"prefixes": ((0, 1),)},
        {"prompts_per_step": 1},
    ],
)
def test_settings_that_make_no_sense_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        RomeConfig(**setting)
