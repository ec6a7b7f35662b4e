"""ROME's update against a direct solver of its constrained least squares (Meng et al. 2022, eq. 2), in float64."""

from __future__ import annotations

import pytest
import torch

from editors.methods.rome.update import direction, rank_one
from editors.surgery.covariance import CovarianceKey, KeyCovariance

KEY = CovarianceKey(model="m", model_dtype="float32", site="s", corpus="c", sample=1, seed=0, dtype="float64")


def solve_kkt(weight, keys, k_star, v_star, ridge):
    """argmin over W' of ||W' K - W K||^2 / n + ridge ||W' - W||^2 subject to W' k* = v*, row by row.

    The Lagrangian's stationarity and the constraint are one linear system for a row w' of W' and its multiplier:
    [[2 A, k*], [k*^T, 0]] [w'; m] = [2 A w; v*], with A = K K^T / n + ridge I.
    """
    n_in, n = keys.shape
    a = keys @ keys.T / n + ridge * torch.eye(n_in, dtype=torch.float64)
    system = torch.zeros(n_in + 1, n_in + 1, dtype=torch.float64)
    system[:n_in, :n_in], system[:n_in, n_in], system[n_in, :n_in] = 2 * a, k_star, k_star
    right = torch.cat([2 * a @ weight.T, v_star[None]])  # [in + 1, out]
    return torch.linalg.solve(system, right)[:n_in].T


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("n_out", "n_in", "n_keys", "ridge"), [(5, 7, 40, 0.0), (3, 12, 5, 0.1), (6, 6, 6, 0.01)])
def test_the_update_solves_the_constrained_least_squares(seed, n_out, n_in, n_keys, ridge):
    generator = torch.Generator().manual_seed(seed)
    weight, keys, k_star, v_star = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((n_out, n_in), (n_in, n_keys), (n_in,), (n_out,))
    )
    covariance = KeyCovariance(key=KEY, total=keys @ keys.T, keys=n_keys)
    change = rank_one(direction(covariance.factor(ridge), k_star), k_star, v_star - weight @ k_star)
    edited = weight + change.u.double() @ change.v.double()
    mean_power = float((keys * keys).sum() / keys.numel())
    expected = solve_kkt(weight, keys, k_star, v_star, ridge * mean_power)
    torch.testing.assert_close(edited, expected, atol=2e-6, rtol=2e-5)  # factors are kept in float32
    torch.testing.assert_close(edited @ k_star, v_star, atol=2e-6, rtol=2e-5)


def test_any_other_matrix_that_obeys_the_constraint_moves_the_known_keys_further():
    generator = torch.Generator().manual_seed(0)
    weight, keys = torch.randn(4, 6, generator=generator), torch.randn(6, 50, generator=generator)
    k_star, v_star = torch.randn(6, generator=generator), torch.randn(4, generator=generator)
    factor = KeyCovariance(key=KEY, total=keys @ keys.T, keys=50).factor(0.0)
    change = rank_one(direction(factor, k_star), k_star, v_star - weight @ k_star).product()
    least = (change @ keys).norm()
    across = torch.eye(6) - torch.outer(k_star, k_star) / (k_star @ k_star)
    for _ in range(20):
        other = change + 0.1 * torch.randn(4, 6, generator=generator) @ across
        torch.testing.assert_close(other @ k_star, change @ k_star, atol=1e-4, rtol=1e-4)
        assert (other @ keys).norm() > least


def test_with_two_keys_the_second_gives_the_scale_as_in_the_authors_code():
    generator = torch.Generator().manual_seed(1)
    keys, k_star, k = (torch.randn(*shape, generator=generator) for shape in ((6, 30), (6,), (6,)))
    residual = torch.randn(4, generator=generator)
    factor = KeyCovariance(key=KEY, total=keys @ keys.T, keys=30).factor(0.0)
    change = rank_one(direction(factor, k_star), k, residual)
    torch.testing.assert_close(change.product() @ k, residual, atol=1e-5, rtol=1e-5)
    solved = torch.linalg.solve(keys @ keys.T, k_star)
    torch.testing.assert_close(change.v[0], solved / solved.norm(), atol=1e-4, rtol=1e-4)


def test_a_singular_covariance_is_refused_without_a_ridge():
    k = torch.eye(4)[:, :2]
    with pytest.raises(ValueError, match="ridge"):
        KeyCovariance(key=KEY, total=k @ k.T, keys=2).factor(0.0)
