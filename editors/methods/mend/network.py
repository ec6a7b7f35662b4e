"""MEND's editor networks g: from a gradient's rank-one parts to those of an edit (Mitchell et al. 2022a, sec. 3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from editors.methods.mend.config import NetworkConfig
from editors.methods.mend.decompose import Factors

_FLOOR = 1e-6
"""Least variance of an entry, as a share of the mean over all entries: one that was never seen to vary stays small."""


class RunningNorm(nn.Module):
    """Centres and scales vectors by the mean and the variance of all that it has been shown.

    Before it has been shown any, it leaves vectors as they are.

    Args:
        width: Of the vectors.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.count: Tensor
        self.mean: Tensor
        self.squares: Tensor
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(width, dtype=torch.float64))
        self.register_buffer("squares", torch.zeros(width, dtype=torch.float64))  # of the differences from the mean

    @torch.no_grad()
    def show(self, x: Tensor) -> None:
        """Take vectors [n, width] into mean and variance, by merging moments (Chan et al. 1979)."""
        if len(x) == 0:
            return
        x = x.double()
        mean, count = x.mean(dim=0), self.count + len(x)
        apart = mean - self.mean
        self.squares += ((x - mean) ** 2).sum(dim=0) + apart**2 * (self.count * len(x) / count)
        self.mean += apart * (len(x) / count)
        self.count.copy_(count)

    def forward(self, x: Tensor) -> Tensor:
        """(x - mean) / standard deviation: [n, width], float32."""
        if not self.count:
            return x.float()
        variance = self.squares / self.count
        scale = (variance + _FLOOR * variance.mean()).sqrt().clamp_min(torch.finfo(torch.float32).tiny)
        return ((x.double() - self.mean) / scale).float()


class _Film(nn.Module):
    """s * (U V z + b) + o, with scale s and shift o of each layer's own (FiLM, Perez et al. 2018)."""

    def __init__(self, width: int, layers: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.u = nn.Parameter(torch.zeros(width, rank))  # zero, so that an untrained network changes nothing
        self.v = nn.Parameter(nn.init.xavier_normal_(torch.empty(rank, width), generator=generator))
        self.b = nn.Parameter(torch.zeros(width))
        self.s = nn.Parameter(torch.ones(layers, width))
        self.o = nn.Parameter(torch.zeros(layers, width))

    def forward(self, z: Tensor, layer: int) -> Tensor:
        return self.s[layer] * (z @ self.v.T @ self.u.T + self.b) + self.o[layer]


class EditorNetwork(nn.Module):
    """g, shared by the layers of one shape (eq. 3).

        h = z + sigma(s1 * (U1 V1 z + b1) + o1)
        g(z) = h + s2 * (U2 V2 h + b2) + o2

    The second has no sigma, a ReLU, with which g could only add to z. At 0, where U = 0 starts it, the first passes
    gradients on.

    Args:
        n_out: Of the layers' weight.
        n_in: Of the layers' weight.
        layers: How many share it.
        rank: Of U V.
        generator: Draws V.
    """

    def __init__(self, n_out: int, n_in: int, layers: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self._split = (n_in, n_out)
        width = n_in + n_out
        self.first = _Film(width, layers, min(rank, width), generator)
        self.second = _Film(width, layers, min(rank, width), generator)

    def forward(self, u: Tensor, delta: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """u~ [tokens, in] and delta~ [tokens, out] from normalised u and delta, for the layer of that index."""
        z = torch.cat([u, delta], dim=1)
        h = z + self.first(z, layer).clamp(min=0)  # unlike relu's, clamp's gradient at 0 is 1
        edited: Tensor = h + self.second(h, layer)
        u_edit, delta_edit = edited.split(self._split, dim=1)
        return u_edit, delta_edit


class Networks(nn.Module):
    """Everything that is trained for one base: networks by shape, and each site's normalisation and step size alpha.

    Args:
        sites: The edited modules by path, with their (out, in).
        config: Size and start.
        seed: Of the start.
    """

    def __init__(self, sites: Mapping[str, tuple[int, int]], config: NetworkConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.sites = dict(sites)
        self._places = {path: place for place, path in enumerate(sites)}
        self._by_shape: dict[tuple[int, int], list[str]] = {}
        for path, shape in sites.items():
            self._by_shape.setdefault(shape, []).append(path)
        generator = torch.Generator().manual_seed(seed)
        self.networks = nn.ModuleList(
            EditorNetwork(n_out, n_in, len(paths), config.rank, generator)
            for (n_out, n_in), paths in self._by_shape.items()
        )
        self.u_norms = nn.ModuleList(RunningNorm(n_in) for _, n_in in sites.values())
        self.delta_norms = nn.ModuleList(RunningNorm(n_out) for n_out, _ in sites.values())
        self.log_alpha = nn.Parameter(torch.full((len(sites),), config.step_size).log())

    def show(self, gradients: Mapping[str, Factors]) -> None:
        """Take gradients into the normalisation."""
        for path, factors in gradients.items():
            self._norm(self.u_norms, path).show(factors.u)
            self._norm(self.delta_norms, path).show(factors.delta)

    def forward(self, gradients: Mapping[str, Factors]) -> dict[str, tuple[Tensor, Tensor]]:
        """Each site's change as factors, -alpha delta~^T [out, tokens] and u~ [tokens, in], in float32.

        Their product is -alpha sum_t delta~_t u~_t^T, the pseudo-gradient with its step.
        """
        return {path: self._change(path, factors) for path, factors in gradients.items()}

    def _change(self, path: str, factors: Factors) -> tuple[Tensor, Tensor]:
        shape, place = self.sites[path], self._places[path]
        network: Any = self.networks[list(self._by_shape).index(shape)]
        u, delta = self._norm(self.u_norms, path)(factors.u), self._norm(self.delta_norms, path)(factors.delta)
        u, delta = network(u, delta, self._by_shape[shape].index(path))
        return -self.log_alpha[place].exp() * delta.T, u

    def _norm(self, norms: nn.ModuleList, path: str) -> RunningNorm:
        norm = norms[self._places[path]]
        assert isinstance(norm, RunningNorm), "the lists hold nothing else"
        return norm
