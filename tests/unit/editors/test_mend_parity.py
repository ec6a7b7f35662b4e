"""MEND's parts against autograd and numpy, on small matrices in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from editors.method import EditRequest
from editors.methods.mend.config import NetworkConfig
from editors.methods.mend.decompose import Factors, decompose, edit_gradients
from editors.methods.mend.network import EditorNetwork, Networks, RunningNorm
from editors.model.loading import load_base
from editors.model.views import view
from editors.surgery.batch import targets_of
from tests.tiny_models import save_lively

SITES = {"first": (7, 5), "second": (5, 7)}
REQUESTS = (
    EditRequest(prompt="The capital of France is", target="Lyon"),
    EditRequest(prompt="Who is the prime minister of the UK?", target="Hull of Kent"),
)


class _Stack(nn.Module):
    """Two linear layers of one kind with something between them, in float64."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.first, self.second = (
            nn.Linear(n_in, n_out) if kind == "linear" else Conv1D(n_out, n_in) for n_out, n_in in SITES.values()
        )
        self.dtype, self.device = torch.float64, torch.device("cpu")
        self.double()

    def forward(self, x):
        return x + self.second(torch.tanh(self.first(x)))


@pytest.fixture(params=["linear", "conv1d"])
def stack(request):
    torch.manual_seed(0)
    return _Stack(request.param)


def full_gradients(model, loss):
    """What autograd gives for the weights themselves, as [out, in]."""
    weights = [model.get_submodule(path).weight for path in SITES]
    gradients = torch.autograd.grad(loss(), weights)
    return {
        path: gradient.T if isinstance(model.get_submodule(path), Conv1D) else gradient
        for path, gradient in zip(SITES, gradients, strict=True)
    }


def test_the_rank_one_products_add_up_to_the_gradient(stack):
    """Three sequences of four tokens; the loss reads two of them, and mixes tokens as attention would."""
    x = torch.randn(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def loss():
        return (stack(x).cumsum(dim=1)[:2] ** 3).sum()

    expected = full_gradients(stack, loss)
    stack.requires_grad_(requires_grad=False)
    found = decompose(stack, SITES, torch.arange(12), loss)
    for path, (u, delta) in found.items():
        assert (u.shape, delta.shape) == ((12, SITES[path][1]), (12, SITES[path][0]))
        total = sum(torch.outer(delta[t], u[t]) for t in range(12))
        torch.testing.assert_close(total, expected[path], atol=1e-12, rtol=1e-10)
        assert not delta[8:].any()


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "opt"])
def test_a_models_factors_add_up_to_its_gradient(model_type, tmp_path):
    base = load_base(save_lively(model_type, tmp_path / "lively"), device="cpu")
    sites = NetworkConfig(blocks=2).sites(base)
    gradients = edit_gradients(base, view(base.model).requires_grad_(requires_grad=False), sites, REQUESTS)
    model, targets = view(base.model).requires_grad_(requires_grad=True), targets_of(base, REQUESTS)
    loss = -targets.batch.log_probabilities(model, targets.places).gather(1, targets.ids[:, None]).sum()
    weights = [model.get_parameter(f"{path}.weight") for path in sites]
    for path, gradient in zip(sites, torch.autograd.grad(loss, weights), strict=True):
        own = gradients[path]
        expected = base.anatomy.oriented(f"{path}.weight", gradient)
        torch.testing.assert_close(own.delta.T @ own.u, expected, atol=1e-5, rtol=1e-4)


def test_each_edit_keeps_its_own_tokens_whatever_it_stands_beside(tmp_path):
    base = load_base(save_lively("llama", tmp_path / "lively"), device="cpu")
    sites, model = NetworkConfig(blocks=1).sites(base), view(base.model).requires_grad_(requires_grad=False)
    both = edit_gradients(base, model, sites, REQUESTS)
    for n, request in enumerate(REQUESTS):
        for path, alone in edit_gradients(base, model, sites, [request]).items():
            own = both[path].of_edits(n, n + 1)
            torch.testing.assert_close(own.u, alone.u, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(own.delta, alone.delta, atol=1e-5, rtol=1e-4)


def test_tokens_that_do_not_bear_on_the_loss_are_left_out(tmp_path):
    base = load_base(save_lively("llama", tmp_path / "lively"), device="cpu")
    sites, model = NetworkConfig(blocks=2).sites(base), view(base.model).requires_grad_(requires_grad=False)
    (request, *_) = REQUESTS
    gradients = edit_gradients(base, model, sites, [request])
    prompt, target = (len(base.tokenizer(text)["input_ids"]) for text in (request.prompt, " Lyon"))
    tokens = {path: len(factors.u) for path, factors in gradients.items()}
    assert tokens["model.layers.0.mlp.down_proj"] == prompt + target - 1  # all but the last, which predicts nothing
    assert tokens["model.layers.1.mlp.down_proj"] == target  # after the last block only these reach the head


def test_normalisation_is_numpys_over_all_that_was_shown():
    rng = np.random.default_rng(0)
    parts = [rng.normal(3.0, (1.0, 2.0, 5.0), size=(n, 3)) for n in (1, 4, 0, 30)]
    norm = RunningNorm(3)
    for part in parts:
        norm.show(torch.from_numpy(part))
    shown, new = np.concatenate(parts), rng.normal(size=(6, 3))
    expected = (new - shown.mean(axis=0)) / shown.std(axis=0)
    np.testing.assert_allclose(norm(torch.from_numpy(new)), expected, rtol=1e-4)  # the floor adds a little
    np.testing.assert_allclose(norm.mean, shown.mean(axis=0))


def test_an_entry_that_never_varied_stays_small():
    norm = RunningNorm(2)
    norm.show(torch.tensor([[0.0, -1.0], [0.0, 1.0]]))
    assert norm(torch.tensor([[1e-3, 1.0]])).abs().max() < 2.0


def test_what_has_been_shown_nothing_leaves_vectors_as_they_are():
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(RunningNorm(3)(x), x)


def test_a_fresh_network_is_the_identity():
    network = EditorNetwork(7, 5, layers=2, rank=3, generator=torch.Generator().manual_seed(0))
    u, delta = torch.randn(4, 5), torch.randn(4, 7)
    for layer in range(2):
        assert all(torch.equal(*pair) for pair in zip(network(u, delta, layer), (u, delta), strict=True))


def test_a_fresh_editor_takes_a_step_down_the_gradient(tmp_path):
    base = load_base(save_lively("gpt2", tmp_path / "lively"), device="cpu")
    config = NetworkConfig(blocks=2, step_size=0.25)
    networks = Networks(config.sites(base), config)
    gradients = edit_gradients(base, view(base.model).requires_grad_(requires_grad=False), networks.sites, REQUESTS)
    for path, (u, v) in networks(gradients).items():
        own = gradients[path]
        torch.testing.assert_close(u @ v, -0.25 * (own.delta.T @ own.u), atol=1e-6, rtol=1e-5)


def test_the_network_computes_the_papers_formula():
    network = EditorNetwork(3, 2, layers=2, rank=4, generator=torch.Generator().manual_seed(0)).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    z = np.random.default_rng(0).normal(size=(6, 5))
    p = {name: parameter.detach().numpy() for name, parameter in network.named_parameters()}
    for layer in range(2):
        expected = z
        for part, sigma in (("first", lambda x: np.maximum(x, 0)), ("second", lambda x: x)):
            u, v, b, s, o = (p[f"{part}.{name}"] for name in "uvbso")
            expected = expected + sigma(s[layer] * (expected @ (u @ v).T + b) + o[layer])
        found = network(torch.from_numpy(z[:, :2]), torch.from_numpy(z[:, 2:]), layer)
        np.testing.assert_allclose(torch.cat(found, dim=1).detach(), expected, rtol=1e-10)


def test_gradients_reach_every_matrix_that_starts_at_zero():
    """With relu's gradient at 0, which is 0, the first layer could not leave its start."""
    network = EditorNetwork(3, 2, layers=1, rank=4, generator=torch.Generator().manual_seed(0))
    sum(part.sum() for part in network(torch.randn(5, 2), torch.randn(5, 3), 0)).backward()
    assert network.first.u.grad.any()
    assert network.second.u.grad.any()


def test_layers_of_one_shape_share_a_network_and_differ_in_scale_and_shift():
    sites = {"a": (3, 2), "b": (2, 3), "c": (3, 2)}
    networks = Networks(sites, NetworkConfig(rank=2))
    assert [tuple(own.first.s.shape) for own in networks.networks] == [(2, 5), (1, 5)]
    factors = Factors(torch.ones(1, 2), torch.ones(1, 3), torch.zeros(1, dtype=torch.long))
    with torch.no_grad():
        networks.networks[0].second.o[1] = 7.0
    a, c = (networks({path: factors})[path][1] for path in ("a", "c"))
    assert torch.equal(c - a, torch.full((1, 2), 7.0))
