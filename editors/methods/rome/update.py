"""The rank-one update W + Lambda (C^-1 k*)^T (Meng et al. 2022, eq. 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from editors.delta import LowRank


def direction(factor: Tensor, k_star: Tensor) -> Tensor:
    """C^-1 k*, of unit length: [in], in float64 on the CPU.

    Args:
        factor: Lower Cholesky factor of C, [in, in], in float64.
        k_star: [in].
    """
    solved: Tensor = torch.cholesky_solve(k_star.double().cpu()[:, None], factor)[:, 0]
    unit: Tensor = solved / solved.norm()
    return unit


def shares(direction: Tensor, keys: Tensor, k: Tensor) -> Tensor:
    """Of what the change writes for the key `k`, how much it writes for each of these keys: [keys], in float32.

    Args:
        direction: C^-1 k*, [in].
        keys: [keys, in].
        k: The key that gives the scale: [in].
    """
    along = direction.to(keys.device, torch.float32)
    return (keys.float() @ along) / (k.float() @ along)


def rank_one(direction: Tensor, k: Tensor, residual: Tensor) -> LowRank:
    """The smallest change, weighed by C, after which the module writes `residual` more for the key `k`.

    With k = k* it solves min ||(W' - W) C^(1/2)|| subject to W' k* = v*; the authors' code puts another key there.

    Args:
        direction: C^-1 k*, [in].
        k: The key that gives the scale: [in].
        residual: v* - W k: [out].

    Returns:
        U = Lambda = (v* - W k) / ((C^-1 k*)^T k), [out, 1], and V = (C^-1 k*)^T of unit length, [1, in].
    """
    scale = residual.double().cpu() / (direction @ k.double().cpu())
    return LowRank(scale.float()[:, None], direction.float()[None])
