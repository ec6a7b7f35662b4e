from __future__ import annotations

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import save_file

from editors.delta import Delta, Dense, LowRank, Origin, compose, install, low_rank
from editors.delta_files import load, save, to_peft
from editors.errors import DeltaMismatch, InvalidDeltaFile
from editors.model.loading import load_base, tensor_hash
from editors.model.views import view

ORIGIN = Origin(method="rome", config={"layer": 1}, edits=({"prompt": "The sky is", "target": "green"},))
TOKENS = torch.arange(2, 26).reshape(2, 12)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=["gpt2", "llama"])
def base(model_folders, request):
    """A model with transposed weights, and one without; the same afterwards, whatever the test did."""
    base = load_base(model_folders[request.param], device="cpu")
    before = tensor_hash(base.model)
    yield base
    assert tensor_hash(base.model) == before


def shape_of(base, part, layer=1):
    site = f"{base.anatomy.within(layer, part)}.weight"
    return site, tuple(base.anatomy.oriented(site, base.model.get_parameter(site)).shape)


def delta_of(base, rank=2, *, layer=1, seed=0, scale=0.1):
    site, (n_out, n_in) = shape_of(base, base.anatomy.mlp_out, layer)
    change = LowRank(scale * randn(n_out, rank, seed=seed), randn(rank, n_in, seed=seed + 1))
    return Delta(base=base.fingerprint, changes={site: change}, origins=(ORIGIN,))


@torch.inference_mode()
def logits(model):
    return model(input_ids=TOKENS).logits


def test_installing_adds_the_product_to_the_weight_whichever_way_it_is_stored(base):
    delta = delta_of(base)
    ((site, change),) = delta.changes.items()
    expected = base.anatomy.oriented(site, base.model.get_parameter(site)) + change.u @ change.v
    assert torch.equal(base.anatomy.oriented(site, install(base, delta).get_parameter(site)), expected)


def test_a_view_with_a_delta_owns_the_edited_weights_alone(base):
    delta = delta_of(base)
    ours, theirs = dict(install(base, delta).named_parameters()), dict(base.model.named_parameters())
    assert {name for name in theirs if ours[name].data_ptr() != theirs[name].data_ptr()} == set(delta.changes)


def test_an_empty_delta_changes_nothing(base):
    assert torch.equal(logits(install(base, Delta(base=base.fingerprint, changes={}))), logits(base.model))


def test_in_a_half_precision_model_the_sum_is_rounded_once(model_folders):
    base = load_base(model_folders["gpt2"], device="cpu", dtype="bfloat16")
    delta = delta_of(base, scale=1e-3)
    ((site, change),) = delta.changes.items()
    summed = base.model.get_parameter(site).float() + (change.u @ change.v).T
    assert torch.equal(install(base, delta).get_parameter(site), summed.to(torch.bfloat16))


def test_composed_low_rank_deltas_add_up_and_so_do_their_ranks(base):
    one, other = delta_of(base, 2), delta_of(base, 3, seed=5)
    both = compose([one, other])
    ((site, change),) = both.changes.items()
    assert (change.rank, len(both.origins)) == (5, 2)
    expected = one.changes[site].product() + other.changes[site].product()
    torch.testing.assert_close(change.product(), expected)


def test_a_dense_change_composed_with_any_is_dense(base):
    low = delta_of(base)
    ((site, change),) = low.changes.items()
    dense = Delta(base=base.fingerprint, changes={site: Dense(randn(*change.shape))})
    torch.testing.assert_close(compose([low, dense]).changes[site].product(), change.product() + randn(*change.shape))


def test_deltas_at_different_sites_keep_each_their_own(base):
    both = compose([delta_of(base, layer=0), delta_of(base, layer=1)])
    assert list(both.changes) == [*delta_of(base, layer=0).changes, *delta_of(base, layer=1).changes]


def test_compressing_many_edits_of_one_matrix_bounds_the_rank_and_loses_nothing(base):
    many = compose([delta_of(base, 4, seed=seed) for seed in range(20)])
    ((site, change),) = many.changes.items()
    compressed = many.compressed().changes[site]
    assert change.rank == 80
    assert compressed.rank == min(change.shape)
    torch.testing.assert_close(compressed.product(), change.product(), atol=1e-4, rtol=1e-4)


def test_a_repeated_edit_compresses_to_its_own_rank():
    change = LowRank(randn(6, 2), randn(2, 9, seed=1))
    twice = LowRank(torch.cat([change.u, change.u], dim=1), torch.cat([change.v, change.v]))
    assert low_rank(twice).rank == 2
    torch.testing.assert_close(low_rank(twice).product(), 2 * change.product())
    assert low_rank(Dense(change.product())).rank == 2


def test_a_bounded_rank_gives_the_nearest_change():
    dense = Dense(randn(6, 9))
    nearest = low_rank(dense, 3)
    assert nearest.rank == 3
    error = (dense.weight - nearest.product()).norm()
    torch.testing.assert_close(error, torch.linalg.svdvals(dense.weight)[3:].norm())
    factored = LowRank(dense.weight, torch.eye(9))
    torch.testing.assert_close(low_rank(factored, 3).product(), nearest.product(), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="rank"):
        low_rank(dense, 0)


def test_norms_are_relative_to_the_weight_they_change(base):
    delta = delta_of(base)
    ((site, change),) = delta.changes.items()
    expected = float(change.product().norm() / base.model.get_parameter(site).norm())
    assert delta.relative_norms(base)[site] == pytest.approx(expected, rel=1e-5)
    dense = Delta(base=base.fingerprint, changes={site: Dense(change.product())})
    assert dense.relative_norms(base)[site] == pytest.approx(expected, rel=1e-5)


def test_a_delta_of_another_base_is_refused(base, model_folders):
    other = load_base(model_folders["opt"], device="cpu")
    for use in (install, lambda base, delta: delta.relative_norms(base)):
        with pytest.raises(DeltaMismatch, match=base.name):
            use(base, Delta(base=other.fingerprint, changes={}))
    with pytest.raises(DeltaMismatch, match="different base"):
        compose([delta_of(base), delta_of(other)])


def test_a_delta_that_does_not_fit_its_weight_is_refused(base):
    ((site, change),) = delta_of(base).changes.items()
    for name, wrong in ((site, LowRank(change.v.T, change.u.T)), ("no.such.weight", change)):
        with pytest.raises(DeltaMismatch, match=name):
            install(base, Delta(base=base.fingerprint, changes={name: wrong}))
    with pytest.raises(DeltaMismatch, match="shape"):
        flipped = Delta(base=base.fingerprint, changes={site: LowRank(change.v.T, change.u.T)})
        compose([delta_of(base), flipped])


@pytest.mark.parametrize(
    "make",
    [
        lambda: LowRank(randn(4, 2), randn(3, 5)),
        lambda: LowRank(randn(4, 2).double(), randn(2, 5).double()),
        lambda: Dense(randn(4)),
        lambda: compose([]),
    ],
)
def test_a_change_that_is_none_is_refused(make):
    with pytest.raises(ValueError, match=r"U |dense|one delta"):
        make()


def test_a_file_says_what_made_it(base, tmp_path):
    site, shape = shape_of(base, base.anatomy.mlp_in[0])
    changes = dict(delta_of(base).changes) | {site: Dense(0.01 * randn(*shape))}
    delta = Delta(base=base.fingerprint, changes=changes, origins=(ORIGIN, ORIGIN))
    save(delta, tmp_path / "delta.safetensors")
    loaded = load(tmp_path / "delta.safetensors", base)
    assert (loaded.base, loaded.origins) == (delta.base, delta.origins)
    assert loaded.changes.keys() == delta.changes.keys()
    assert torch.equal(logits(install(base, loaded)), logits(install(base, delta)))


def test_loading_for_another_base_is_refused(base, model_folders, tmp_path):
    save(delta_of(base), tmp_path / "delta.safetensors")
    with pytest.raises(DeltaMismatch, match=base.fingerprint[:12]):
        load(tmp_path / "delta.safetensors", load_base(model_folders["opt"], device="cpu"))


@pytest.mark.parametrize("damage", ["missing", "cut short", "not ours", "another format"])
def test_a_file_that_cannot_be_read_is_refused(base, tmp_path, damage):
    path = tmp_path / "delta.safetensors"
    save(delta_of(base), path)
    if damage == "missing":
        path.unlink()
    elif damage == "cut short":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        manifest = {"manifest": json.dumps({"format": "errata-delta-9"})} if damage == "another format" else None
        save_file({"u": randn(2, 2)}, path, metadata=manifest)
    with pytest.raises(InvalidDeltaFile, match="delta"):
        load(path, base)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT asks for it; transformers warns
def test_an_adapter_of_unequal_ranks_and_dense_changes_gives_the_same_logits(base, tmp_path):
    site, shape = shape_of(base, base.anatomy.mlp_in[0], layer=0)
    dense = Delta(base=base.fingerprint, changes={site: Dense(0.01 * randn(*shape))})
    delta = compose([delta_of(base, 1, layer=0), delta_of(base, 3, layer=1), dense])
    to_peft(delta, base, tmp_path)
    adapted = PeftModel.from_pretrained(view(base.model), tmp_path).eval()
    torch.testing.assert_close(logits(adapted), logits(install(base, delta)), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(logits(adapted), logits(base.model), atol=1e-2)


def test_an_adapter_is_what_vllm_reads(base, tmp_path):
    delta = compose([delta_of(base, 1, layer=0), delta_of(base, 3, layer=1)])
    to_peft(delta, base, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["bias"]) == (3, 3, "none")
    modules = [site.removesuffix(".weight") for site in delta.changes]
    assert config["target_modules"] == modules
    assert config["rank_pattern"] == {modules[0]: 1}
    assert config["fan_in_fan_out"] == (base.model.config.model_type == "gpt2")


def test_an_adapter_of_nothing_is_refused(base, tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        to_peft(Delta(base=base.fingerprint, changes={}), base, tmp_path)
