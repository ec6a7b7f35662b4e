from __future__ import annotations

from dataclasses import replace
from math import exp

import pytest
import torch
from safetensors.torch import save_file

from editors.delta import LowRank, install
from editors.errors import (
    ContextExceeded,
    NonFiniteEdit,
    TrainedEditorMismatch,
    TrainedEditorNotFound,
    UnknownArchitecture,
)
from editors.evaluation.subjects import ModelSubject
from editors.method import EditRequest
from editors.methods.mend.config import MendConfig, NetworkConfig
from editors.methods.mend.editor import Mend
from editors.methods.mend.files import TrainedEditor, find, load, save
from editors.methods.mend.network import Networks
from editors.model.anatomy import ANATOMIES
from editors.model.loading import load_base
from tests.tiny_models import CONFIGS, UNKNOWN, save_lively

CONFIG = NetworkConfig(blocks=2, rank=4, step_size=2e-3)
FRANCE = EditRequest(prompt="The capital of France is", target="Lyon")
UK = EditRequest(prompt="The capital of the UK is", target="Hull")


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {kind: load_base(save_lively(kind, folder / f"lively-{kind}"), device="cpu") for kind in ("gpt2", "llama")}


@pytest.fixture(scope="module")
def base(bases):
    return bases["llama"]


def editor_of(base, *, score=0.0, seed=0):
    """An editor with something in its networks that changes what they are given."""
    networks = Networks(CONFIG.sites(base), CONFIG, seed=seed)
    with torch.no_grad():
        for network in networks.networks:
            network.second.o.normal_(std=0.01, generator=torch.Generator().manual_seed(seed))
    return TrainedEditor(base=base.fingerprint, config=CONFIG, networks=networks, score=score)


@pytest.fixture
def assets(base, tmp_path):
    save(editor_of(base), tmp_path / "mend.safetensors")
    return [tmp_path]


def prepare(base, assets, *requests, **settings):
    return Mend().prepare(base, requests, MendConfig(**settings), assets=assets)


def change_of(delta, site):
    return delta.changes[f"{site}.weight"].product()


def test_edits_at_once_are_the_sum_of_edits_one_by_one_until_they_are_settled(base, assets):
    both, one, other = (
        prepare(base, assets, *requests, certainty=None) for requests in ((FRANCE, UK), (FRANCE,), (UK,))
    )
    for site in CONFIG.sites(base):
        torch.testing.assert_close(
            change_of(both, site), change_of(one, site) + change_of(other, site), atol=1e-5, rtol=1e-3
        )


def test_every_mlp_matrix_of_the_last_blocks_changes_in_low_rank(base, assets):
    delta = prepare(base, assets, FRANCE)
    assert sorted(delta.changes) == sorted(
        f"model.layers.{layer}.mlp.{part}.weight" for layer in (0, 1) for part in ("gate_proj", "up_proj", "down_proj")
    )
    tokens = len(base.tokenizer("The capital of France is Lyon")["input_ids"])
    assert all(isinstance(c, LowRank) and c.rank <= tokens for c in delta.changes.values())


def test_more_tokens_than_a_weight_has_rank_are_compressed_without_loss(base, assets):
    requests = [EditRequest(prompt=f"The {n}th capital of France is", target="Lyon") for n in range(8)]
    delta = prepare(base, assets, *requests, certainty=None)
    assert {change.rank for change in delta.changes.values()} <= set(range(1, 33))
    summed = sum(change_of(prepare(base, assets, r, certainty=None), "model.layers.0.mlp.up_proj") for r in requests)
    torch.testing.assert_close(change_of(delta, "model.layers.0.mlp.up_proj"), summed, atol=1e-4, rtol=1e-3)


def test_a_rank_bounds_every_change(base, assets):
    assert {change.rank for change in prepare(base, assets, FRANCE, rank=2).changes.values()} == {2}


def test_the_scale_multiplies_the_change(base, assets):
    whole, half = (prepare(base, assets, FRANCE, certainty=None, scale=scale) for scale in (1.0, 0.5))
    for site in CONFIG.sites(base):
        torch.testing.assert_close(0.5 * change_of(whole, site), change_of(half, site))


def test_several_edits_take_effect_together(base, assets):
    edited = install(base, prepare(base, assets, FRANCE, UK))

    def likelihood(model, request):
        subject = ModelSubject(model, base.tokenizer, max_new_tokens=1)
        return subject.score([(request.prompt, request.target)])[0].mean

    for request in (FRANCE, UK):
        assert likelihood(edited, request) > likelihood(base.model, request)


def certainties(model, base, requests):
    """The least likely token of each request's target."""
    subject = ModelSubject(model, base.tokenizer, max_new_tokens=1)
    return [exp(min(s.log_probabilities)) for s in subject.score([(r.prompt, r.target) for r in requests])]


@pytest.mark.parametrize("requests", [(FRANCE,), (UK,), (FRANCE, UK)], ids=["one", "longer", "both"])
def test_a_settled_edit_is_more_certain_than_the_step_it_was_made_from(base, assets, requests):
    taken, settled = (install(base, prepare(base, assets, *requests, certainty=c, steps=60)) for c in (None, 0.9))
    both = zip(certainties(taken, base, requests), certainties(settled, base, requests), strict=True)
    assert all(after > 5 * before for before, after in both)


def test_settling_changes_what_is_written_and_not_what_it_answers_to(base, assets):
    taken, settled = (prepare(base, assets, UK, certainty=certainty) for certainty in (None, 0.9))
    for site, change in taken.changes.items():
        assert torch.equal(settled.changes[site].v, change.v)
        assert not torch.equal(settled.changes[site].u, change.u)


def test_without_steps_an_edit_that_holds_at_no_length_is_left_at_the_nearest(base, assets):
    taken, nearest = (prepare(base, assets, UK, certainty=c, steps=0) for c in (None, 0.99))
    ratios = {
        round((nearest.changes[site].u.norm() / change.u.norm()).item(), 3) for site, change in taken.changes.items()
    }
    assert ratios == {0.6}


def test_a_saved_editor_gives_the_same_edits_whatever_precision_it_is_kept_in(base, assets, tmp_path):
    loaded = load(tmp_path / "mend.safetensors", base)
    assert (loaded.base, loaded.config, loaded.networks.sites) == (base.fingerprint, CONFIG, CONFIG.sites(base))
    original = editor_of(base).networks.state_dict()
    for name, tensor in loaded.networks.state_dict().items():
        torch.testing.assert_close(tensor, original[name], atol=1e-6, rtol=1e-3)


def test_the_best_editor_of_the_base_is_used_and_other_files_are_passed_over(bases, base, assets, tmp_path):
    save(editor_of(base, score=0.9, seed=1), tmp_path / "better.safetensors")
    save(replace(editor_of(bases["gpt2"]), score=1.0), tmp_path / "another.safetensors")
    save_file({"total": torch.zeros(1)}, tmp_path / "statistics.safetensors", metadata={"format": "else"})
    (tmp_path / "rubbish.safetensors").write_bytes(b"rubbish")
    assert find(base, assets).score == 0.9


def test_without_an_editor_the_error_says_how_to_train_one(base, tmp_path):
    with pytest.raises(TrainedEditorNotFound, match="lively-llama") as caught:
        prepare(base, [tmp_path], FRANCE)
    assert "errata train mend" in caught.value.hint


def test_an_architecture_that_is_not_in_the_table_is_refused(model_folders, assets):
    with pytest.raises(UnknownArchitecture, match=UNKNOWN):
        prepare(load_base(model_folders[UNKNOWN], device="cpu"), assets, FRANCE)


def test_an_editor_of_another_base_is_refused(bases, assets):
    with pytest.raises(TrainedEditorMismatch, match="lively-gpt2") as caught:
        prepare(bases["gpt2"], assets, FRANCE)
    assert "errata train mend" in caught.value.hint


def test_an_editor_of_another_shape_is_refused(base, tmp_path):
    sites = {site: (n_out + 1, n_in) for site, (n_out, n_in) in CONFIG.sites(base).items()}
    save(replace(editor_of(base), networks=Networks(sites, CONFIG)), tmp_path / "mend.safetensors")
    with pytest.raises(TrainedEditorMismatch, match="gate_proj"):
        prepare(base, [tmp_path], FRANCE)


def test_a_damaged_editor_is_refused(base, assets, tmp_path):
    path = tmp_path / "mend.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(TrainedEditorNotFound, match=r"mend\.safetensors"):
        load(path, base)


def test_an_edit_with_undefined_numbers_is_refused(base, tmp_path):
    editor = editor_of(base)
    with torch.no_grad():
        editor.networks.log_alpha.fill_(torch.inf)
    save(editor, tmp_path / "mend.safetensors")
    with pytest.raises(NonFiniteEdit):
        prepare(base, [tmp_path], FRANCE)


def test_a_prompt_beyond_the_context_is_refused(base, assets):
    with pytest.raises(ContextExceeded, match="256"):
        prepare(base, assets, EditRequest(prompt="very " * 200 + FRANCE.prompt, target="Lyon"))


@pytest.mark.parametrize("model_type", ANATOMIES)
def test_the_last_blocks_exist_in_every_architecture(model_type, model_folders):
    base = load_base(model_folders[model_type], device="cpu")
    sites = NetworkConfig(blocks=1).sites(base)
    assert len(sites) == len(base.anatomy.mlp_in) + 1
    assert all(f".{CONFIGS[model_type].num_hidden_layers - 1}." in site for site in sites)
    with pytest.raises(ValueError, match="this model has 2"):
        NetworkConfig().sites(base)


@pytest.mark.parametrize(
    "setting", [{"scale": 0.0}, {"rank": 0}, {"certainty": 0.4}, {"certainty": 1.0}, {"steps": -1}]
)
def test_settings_that_make_no_sense_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        MendConfig(**setting)
