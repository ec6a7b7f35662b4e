"""The rank-one update W + Lambda (C^-1 k*)^T (Meng et al. 2022, eq. 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from editors.delta import LowRank


def rank_one(factor: Tensor, k_star: Tensor, k: Tensor, residual: Tensor) -> LowRank:
    """The smallest change, weighed by C, after which the module writes `residual` more for the key `k`.

    With k = k* it solves min ||(W' - W) C^(1/2)|| subject to W' k* = v*; the authors' code puts another key there.

    Args:
        factor: Lower Cholesky factor of C, [in, in], in float64.
        k_star: The key that gives the direction C^-1 k*: [in].
        k: The key that gives the scale: [in].
        residual: v* - W k: [out].

    Returns:
        U = Lambda = (v* - W k) / ((C^-1 k*)^T k), [out, 1], and V = (C^-1 k*)^T of unit length, [1, in].
    """
    direction = torch.cholesky_solve(k_star.double().cpu()[:, None], factor)[:, 0]
    direction = direction / direction.norm()
    scale = residual.double().cpu() / (direction @ k.double().cpu())
    return LowRank(scale.float()[:, None], direction.float()[None])
